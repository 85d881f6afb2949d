defmodule Foundation.Native.Object do
  @moduledoc false
  # Whether a shared object is whole. One that was cut short, as a copy on a full disk is, has what the dynamic linker reads first, and then the
  # kernel ends the VM with a bus error: there are no pages behind the end of a file.

  @loadable 1

  @doc false
  # Only of ELF files; the linker says what is wrong with what is none, or not there.
  @spec whole(Path.t()) :: :ok | {:error, String.t()}
  def whole(path) do
    case :file.open(path, [:read, :raw, :binary]) do
      {:ok, file} ->
        try do
          check(file, path)
        after
          :file.close(file)
        end

      {:error, _reason} ->
        :ok
    end
  end

  defp check(file, path) do
    {:ok, size} = :file.position(file, :eof)

    needed =
      case :file.pread(file, 0, 64) do
        {:ok, <<0x7F, "ELF", class, order, _rest::binary>> = header} ->
          needed(file, class, order, header)

        _other ->
          0
      end

    if size >= needed,
      do: :ok,
      else: {:error, "#{path} has #{size} bytes of at least #{needed}: it was not copied whole"}
  end

  # The end of the last thing that the headers speak of: the segments, and the table of sections, which linkers put last. A file of an order of bytes
  # that is none is the linker's to refuse.
  defp needed(
         file,
         2,
         order,
         <<_::32*8, offsets::binary-16, _::6*8, counts::binary-8, _::binary>>
       )
       when order in [1, 2],
       do: last(file, order, 8, integers(offsets, 8, order) ++ integers(counts, 2, order))

  defp needed(file, 1, order, <<_::28*8, offsets::binary-8, _::6*8, counts::binary-8, _::binary>>)
       when order in [1, 2],
       do: last(file, order, 4, integers(offsets, 4, order) ++ integers(counts, 2, order))

  defp needed(_file, class, _order, header) when class in [1, 2] and byte_size(header) < 64,
    do: 64

  defp needed(_file, _class, _order, _header), do: 0

  defp last(file, order, width, [at, sections, entry, count, section, section_count]) do
    table = at + entry * count

    ends =
      for n <- 0..(count - 1)//1,
          {:ok, row} <- [:file.pread(file, at + n * entry, entry)],
          byte_size(row) == entry,
          do: segment_end(row, width, order)

    Enum.max([table, sections + section * section_count | ends])
  end

  # Type, then flags in the wide form, offset, two addresses, size in the file.
  defp segment_end(row, width, order) do
    <<type::binary-4, rest::binary>> = row
    rest = if width == 8, do: binary_part(rest, 4, byte_size(rest) - 4), else: rest
    [offset, _virtual, _physical, size | _more] = integers(rest, width, order)
    if integers(type, 4, order) == [@loadable], do: offset + size, else: 0
  end

  defp integers(bytes, width, order) do
    endianness = if order == 1, do: :little, else: :big

    for at <- 0..(byte_size(bytes) - width)//width do
      bytes |> binary_part(at, width) |> :binary.decode_unsigned(endianness)
    end
  end
end
