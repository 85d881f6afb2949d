defmodule Foundation.Native.XXH3 do
  @moduledoc false
  # XXH3 with 64 bits and seed 0 in Elixir, after the specification of xxHash 0.8 (doc/xxhash_spec.md there): the fallback of
  # Foundation.Native.xxh3/1.

  import Bitwise

  @mask 0xFFFF_FFFF_FFFF_FFFF
  @mask32 0xFFFF_FFFF
  @prime32_1 0x9E3779B1
  @prime32_2 0x85EBCA77
  @prime32_3 0xC2B2AE3D
  @prime64_1 0x9E3779B185EBCA87
  @prime64_2 0xC2B2AE3D27D4EB4F
  @prime64_3 0x165667B19E3779F9
  @prime64_4 0x85EBCA77C2B2AE63
  @prime64_5 0x27D4EB2F165667C5
  @prime_mx1 0x165667919E3779F9
  @prime_mx2 0x9FB21C651E98DF25

  @secret Base.decode16!(
            "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f" <>
              "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c" <>
              "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8" <>
              "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364" <>
              "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e" <>
              "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e",
            case: :lower
          )

  # The secret as 64-bit words from each byte on: word(offset) is read at compile time.
  @words 0..184
         |> Enum.map(&:binary.decode_unsigned(binary_part(@secret, &1, 8), :little))
         |> List.to_tuple()

  # 16 stripes of 64 bytes: (192 - 64) / 8.
  @block 1024

  @spec hash(binary()) :: non_neg_integer()
  def hash(bytes) do
    case byte_size(bytes) do
      0 -> avalanche64(bxor(word(56), word(64)))
      n when n <= 3 -> hash_1_to_3(bytes, n)
      n when n <= 8 -> hash_4_to_8(bytes, n)
      n when n <= 16 -> hash_9_to_16(bytes, n)
      n when n <= 128 -> hash_17_to_128(bytes, n)
      n when n <= 240 -> hash_129_to_240(bytes, n)
      n -> hash_long(bytes, n)
    end
  end

  defp word(offset), do: elem(@words, offset)

  defp hash_1_to_3(bytes, n) do
    combined =
      :binary.last(bytes) ||| n <<< 8 ||| :binary.first(bytes) <<< 16 |||
        :binary.at(bytes, n >>> 1) <<< 24

    <<low::little-32, high::little-32, _::binary>> = @secret
    avalanche64(bxor(bxor(low, high), combined))
  end

  defp hash_4_to_8(bytes, n) do
    <<first::little-32, _::binary>> = bytes
    <<last::little-32>> = binary_part(bytes, n, -4)
    value = bxor(bxor(word(8), word(16)), last ||| first <<< 32)
    value = bxor(value, bxor(rotate(value, 49), rotate(value, 24)))
    value = value * @prime_mx2 &&& @mask
    value = bxor(value, (value >>> 35) + n)
    value = value * @prime_mx2 &&& @mask
    bxor(value, value >>> 28)
  end

  defp hash_9_to_16(bytes, n) do
    <<first::little-64, _::binary>> = bytes
    <<last::little-64>> = binary_part(bytes, n, -8)
    low = bxor(bxor(word(24), word(32)), first)
    high = bxor(bxor(word(40), word(48)), last)
    <<swapped::little-64>> = <<low::64>>
    avalanche(n + swapped + high + fold(low, high) &&& @mask)
  end

  defp hash_17_to_128(bytes, n) do
    pairs = div(n - 1, 32)

    0..pairs
    |> Enum.reduce(n * @prime64_1, fn i, acc ->
      acc + mix(binary_part(bytes, i * 16, 16), i * 32) +
        mix(binary_part(bytes, n - i * 16, -16), i * 32 + 16)
    end)
    |> band(@mask)
    |> avalanche()
  end

  defp hash_129_to_240(bytes, n) do
    acc =
      Enum.reduce(0..7, n * @prime64_1, fn i, acc ->
        acc + mix(binary_part(bytes, i * 16, 16), i * 16)
      end)

    acc =
      Enum.reduce(8..(div(n, 16) - 1)//1, avalanche(acc &&& @mask), fn i, acc ->
        acc + mix(binary_part(bytes, i * 16, 16), (i - 8) * 16 + 3)
      end)

    avalanche(acc + mix(binary_part(bytes, n, -16), 119) &&& @mask)
  end

  defp mix(<<a::little-64, b::little-64>>, offset),
    do: fold(bxor(a, word(offset)), bxor(b, word(offset + 8)))

  # The two halves of the product.
  defp fold(a, b) do
    product = a * b
    bxor(product &&& @mask, product >>> 64)
  end

  defp hash_long(bytes, n) do
    acc =
      {@prime32_3, @prime64_1, @prime64_2, @prime64_3, @prime64_4, @prime32_2, @prime64_5,
       @prime32_1}

    acc = stripe(binary_part(bytes, n, -64), 121, blocks(bytes, acc))
    merge(acc, n * @prime64_1 &&& @mask)
  end

  # All blocks but the last, which may be a whole one; of that all stripes but the last, even if it is a whole one.
  defp blocks(bytes, acc) when byte_size(bytes) > @block do
    <<block::binary-size(@block), rest::binary>> = bytes
    blocks(rest, block |> stripes(0, acc) |> scramble())
  end

  defp blocks(bytes, acc) do
    whole = div(byte_size(bytes) - 1, 64) * 64
    bytes |> binary_part(0, whole) |> stripes(0, acc)
  end

  defp stripes(<<one::binary-size(64), rest::binary>>, offset, acc),
    do: stripes(rest, offset + 8, stripe(one, offset, acc))

  defp stripes(<<>>, _offset, acc), do: acc

  defp stripe(
         <<d0::little-64, d1::little-64, d2::little-64, d3::little-64, d4::little-64,
           d5::little-64, d6::little-64, d7::little-64>>,
         offset,
         {a0, a1, a2, a3, a4, a5, a6, a7}
       ) do
    {
      a0 + d1 + product(d0, offset) &&& @mask,
      a1 + d0 + product(d1, offset + 8) &&& @mask,
      a2 + d3 + product(d2, offset + 16) &&& @mask,
      a3 + d2 + product(d3, offset + 24) &&& @mask,
      a4 + d5 + product(d4, offset + 32) &&& @mask,
      a5 + d4 + product(d5, offset + 40) &&& @mask,
      a6 + d7 + product(d6, offset + 48) &&& @mask,
      a7 + d6 + product(d7, offset + 56) &&& @mask
    }
  end

  defp product(data, offset) do
    value = bxor(data, word(offset))
    (value &&& @mask32) * (value >>> 32)
  end

  defp scramble(acc) do
    acc
    |> Tuple.to_list()
    |> Enum.with_index(fn a, i ->
      bxor(bxor(a, a >>> 47), word(128 + i * 8)) * @prime32_1 &&& @mask
    end)
    |> List.to_tuple()
  end

  defp merge(acc, start) do
    0..3
    |> Enum.reduce(start, fn i, sum ->
      sum +
        fold(
          bxor(elem(acc, i * 2), word(11 + i * 16)),
          bxor(elem(acc, i * 2 + 1), word(19 + i * 16))
        )
    end)
    |> band(@mask)
    |> avalanche()
  end

  defp avalanche(x) do
    x = bxor(x, x >>> 37)
    x = x * @prime_mx1 &&& @mask
    bxor(x, x >>> 32)
  end

  defp avalanche64(x) do
    x = bxor(x, x >>> 33)
    x = x * @prime64_2 &&& @mask
    x = bxor(x, x >>> 29)
    x = x * @prime64_3 &&& @mask
    bxor(x, x >>> 32)
  end

  defp rotate(x, by), do: (x <<< by ||| x >>> (64 - by)) &&& @mask
end
