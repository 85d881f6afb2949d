/*
 * A node made with OTP's C library, for comparison.
 *
 *   ei_peer serve NAME COOKIE   takes connections: bench (sinks), echo
 *   ei_peer drive NAME COOKIE   sends when told to on standard input: send node=N@127.0.0.1 senders=1 count=C size=S
 *
 * As the library's documentation shows it, with TCP_NODELAY set, which the library leaves out.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <ei.h>
#include <pthread.h>

static ei_cnode node;

static void fail(const char *what)
{
    printf("failed: %s (erl_errno %d)\n", what, erl_errno);
    fflush(stdout);
    exit(1);
}

static void no_delay(int fd)
{
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* The end of standard input ends the program: whoever started it is gone. */
static void *watch_stdin(void *unused)
{
    char byte;
    while (read(0, &byte, 1) > 0)
        ;
    _exit(0);
    return unused;
}

static void reply_sink(int fd, erlang_pid *to)
{
    ei_x_buff out;
    ei_x_new_with_version(&out);
    ei_x_encode_tuple_header(&out, 2);
    ei_x_encode_atom(&out, "sink");
    ei_x_encode_pid(&out, ei_self(&node));
    ei_send(fd, to, out.buff, out.index);
    ei_x_free(&out);
}

/* One connection to its end. */
static void serve(int fd)
{
    ei_x_buff in, out;
    erlang_msg message;
    long long count = 0, next = 0, bad = 0;
    ei_x_new(&in);
    ei_x_new(&out);
    for (;;) {
        char atom[MAXATOMLEN_UTF8];
        erlang_pid from;
        int index = 0, version, arity, type, size;
        in.index = 0;
        int kind = ei_xreceive_msg(fd, &message, &in);
        if (kind == ERL_ERROR)
            break;
        if (kind != ERL_MSG)
            continue;
        if (ei_decode_version(in.buff, &index, &version) || ei_decode_tuple_header(in.buff, &index, &arity))
            continue;
        ei_get_type(in.buff, &index, &type, &size);
        if (arity == 3 && !ei_decode_atom(in.buff, &index, atom)) {
            long long number;
            if (ei_decode_longlong(in.buff, &index, &number))
                continue;
            count++;
            if (number >= 0) {
                bad += number != next;
                next = number + 1;
            }
        } else if (type == ERL_PID_EXT || type == ERL_NEW_PID_EXT) {
            /* {From, Rest}: the rest goes back as it is. */
            if (ei_decode_pid(in.buff, &index, &from))
                continue;
            out.index = 0;
            ei_x_encode_version(&out);
            ei_x_append_buf(&out, in.buff + index, in.index - index);
            ei_send(fd, &from, out.buff, out.index);
        } else if (!ei_decode_atom(in.buff, &index, atom) && !ei_decode_pid(in.buff, &index, &from)) {
            if (!strcmp(atom, "sink")) {
                count = next = bad = 0;
                reply_sink(fd, &from);
            } else {
                out.index = 0;
                ei_x_encode_version(&out);
                ei_x_encode_tuple_header(&out, 3);
                ei_x_encode_atom(&out, "received");
                ei_x_encode_longlong(&out, count);
                ei_x_encode_longlong(&out, bad);
                ei_send(fd, &from, out.buff, out.index);
            }
        }
    }
    ei_x_free(&in);
    ei_x_free(&out);
    close(fd);
}

static void accept_for_ever(void)
{
    int port = 0;
    int listener = ei_listen(&node, &port, 5);
    pthread_t watcher;
    ErlConnect peer;
    if (listener < 0 || ei_publish(&node, port) < 0)
        fail("cannot listen or register");
    printf("ok=1\n");
    fflush(stdout);
    pthread_create(&watcher, NULL, watch_stdin, NULL);
    for (;;) {
        int fd = ei_accept(&node, listener, &peer);
        if (fd < 0)
            continue;
        no_delay(fd);
        serve(fd);
    }
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

/* Waits for a message and leaves the index behind its tuple header and tag. */
static int await(int fd, ei_x_buff *in, int *index)
{
    erlang_msg message;
    char atom[MAXATOMLEN_UTF8];
    int kind, version, arity;
    do {
        in->index = 0;
        kind = ei_xreceive_msg(fd, &message, in);
        if (kind == ERL_ERROR)
            return -1;
    } while (kind != ERL_MSG);
    *index = 0;
    return ei_decode_version(in->buff, index, &version) || ei_decode_tuple_header(in->buff, index, &arity)
        || ei_decode_atom(in->buff, index, atom);
}

static void tell(ei_x_buff *out, const char *tag)
{
    out->index = 0;
    ei_x_encode_version(out);
    ei_x_encode_tuple_header(out, 2);
    ei_x_encode_atom(out, tag);
    ei_x_encode_pid(out, ei_self(&node));
}

static void blast(int fd, long long count, long size)
{
    ei_x_buff in, out;
    erlang_pid sink;
    long long received, bad;
    int index;
    char *payload = malloc(size);
    memset(payload, 'x', size);
    ei_x_new(&in);
    ei_x_new(&out);
    tell(&out, "sink");
    ei_reg_send(&node, fd, "bench", out.buff, out.index);
    if (await(fd, &in, &index) || ei_decode_pid(in.buff, &index, &sink))
        fail("no sink");
    double start = now_us();
    for (long long number = 0; number < count; number++) {
        out.index = 0;
        ei_x_encode_version(&out);
        ei_x_encode_tuple_header(&out, 3);
        ei_x_encode_atom(&out, "msg");
        ei_x_encode_longlong(&out, number);
        ei_x_encode_binary(&out, payload, size);
        if (ei_send(fd, &sink, out.buff, out.index) < 0)
            fail("send");
    }
    tell(&out, "done");
    ei_send(fd, &sink, out.buff, out.index);
    if (await(fd, &in, &index) || ei_decode_longlong(in.buff, &index, &received)
        || ei_decode_longlong(in.buff, &index, &bad))
        fail("no answer");
    printf("us=%f bad=%lld\n", now_us() - start, bad + llabs(count - received));
    fflush(stdout);
    free(payload);
    ei_x_free(&in);
    ei_x_free(&out);
}

static void drive(void)
{
    char line[512], peer[256] = "", connected[256] = "";
    int fd = -1;
    long long count;
    long senders, size;
    printf("ok=1\n");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "send node=%255s senders=%ld count=%lld size=%ld", peer, &senders, &count, &size) != 4) {
            printf("failed: unknown operation\n");
            fflush(stdout);
            continue;
        }
        if (fd < 0 || strcmp(peer, connected)) {
            fd = ei_connect(&node, peer);
            if (fd < 0)
                fail("connect");
            no_delay(fd);
            strcpy(connected, peer);
        }
        blast(fd, count, size);
    }
}

int main(int argc, char **argv)
{
    struct in_addr address;
    char full[256];
    if (argc != 4)
        return 64;
    signal(SIGPIPE, SIG_IGN);
    ei_init();
    address.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(full, sizeof full, "%s@127.0.0.1", argv[2]);
    if (ei_connect_xinit(&node, "127.0.0.1", argv[2], full, &address, argv[3], getpid() & 0xffff) < 0)
        fail("init");
    if (!strcmp(argv[1], "serve"))
        accept_for_ever();
    drive();
    return 0;
}
