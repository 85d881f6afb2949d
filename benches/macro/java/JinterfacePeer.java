import com.ericsson.otp.erlang.*;
import java.io.BufferedReader;
import java.io.InputStreamReader;

/**
 * A node made with OTP's Java library, for comparison.
 *
 *   JinterfacePeer serve NAME COOKIE   takes connections: bench (sinks), echo
 *   JinterfacePeer drive NAME COOKIE   sends when told to on standard input: send node=N@127.0.0.1 senders=1 count=C size=S
 *
 * The library sets TCP_NODELAY by itself.
 */
public class JinterfacePeer {
    static OtpErlangAtom atom(String name) {
        return new OtpErlangAtom(name);
    }

    static OtpErlangTuple tuple(OtpErlangObject... elements) {
        return new OtpErlangTuple(elements);
    }

    static void answer(String line) {
        System.out.println(line);
        System.out.flush();
    }

    static void start(Runnable body) {
        Thread thread = new Thread(body);
        thread.setDaemon(true);
        thread.start();
    }

    /** Counts messages and those that are out of order; -1 has no place in the order. */
    static void sink(OtpMbox box) {
        long count = 0, next = 0, bad = 0;
        try {
            while (true) {
                OtpErlangTuple message = (OtpErlangTuple) box.receive();
                if (message.arity() == 3) {
                    long number = ((OtpErlangLong) message.elementAt(1)).longValue();
                    count++;
                    if (number >= 0) {
                        bad += number != next ? 1 : 0;
                        next = number + 1;
                    }
                } else {
                    OtpErlangPid from = (OtpErlangPid) message.elementAt(1);
                    box.send(from, tuple(atom("received"), new OtpErlangLong(count), new OtpErlangLong(bad)));
                    return;
                }
            }
        } catch (OtpErlangExit | OtpErlangDecodeException e) {
            answer("failed: " + e);
        }
    }

    static void serve(OtpNode node) throws Exception {
        OtpMbox bench = node.createMbox("bench");
        OtpMbox echo = node.createMbox("echo");
        start(() -> {
            try {
                while (true) {
                    OtpErlangTuple message = (OtpErlangTuple) echo.receive();
                    echo.send((OtpErlangPid) message.elementAt(0), message.elementAt(1));
                }
            } catch (OtpErlangExit | OtpErlangDecodeException e) {
                answer("failed: " + e);
            }
        });
        start(() -> {
            try {
                while (true) {
                    OtpErlangPid from = (OtpErlangPid) ((OtpErlangTuple) bench.receive()).elementAt(1);
                    OtpMbox box = node.createMbox();
                    start(() -> sink(box));
                    bench.send(from, tuple(atom("sink"), box.self()));
                }
            } catch (OtpErlangExit | OtpErlangDecodeException e) {
                answer("failed: " + e);
            }
        });
        answer("ok=1");
        // The end of standard input ends the program: whoever started it is gone.
        while (System.in.read() >= 0) {
        }
    }

    static String blast(OtpNode node, String peer, long count, int size) throws Exception {
        OtpMbox box = node.createMbox();
        box.send("bench", peer, tuple(atom("sink"), box.self()));
        OtpErlangTuple made = (OtpErlangTuple) box.receive(60000);
        OtpErlangPid sink = (OtpErlangPid) made.elementAt(1);
        byte[] bytes = new byte[size];
        java.util.Arrays.fill(bytes, (byte) 'x');
        OtpErlangBinary payload = new OtpErlangBinary(bytes);
        OtpErlangAtom msg = atom("msg");
        long start = System.nanoTime();
        for (long number = 0; number < count; number++) {
            box.send(sink, tuple(msg, new OtpErlangLong(number), payload));
        }
        box.send(sink, tuple(atom("done"), box.self()));
        OtpErlangTuple received = (OtpErlangTuple) box.receive(60000);
        double us = (System.nanoTime() - start) / 1e3;
        long got = ((OtpErlangLong) received.elementAt(1)).longValue();
        long bad = ((OtpErlangLong) received.elementAt(2)).longValue();
        node.closeMbox(box);
        return "us=" + us + " bad=" + (bad + Math.abs(count - got));
    }

    static void drive(OtpNode node) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        answer("ok=1");
        String line;
        while ((line = lines.readLine()) != null) {
            String[] words = line.split(" ");
            if (!words[0].equals("send")) {
                answer("failed: unknown operation");
                continue;
            }
            String peer = words[1].substring("node=".length());
            long count = Long.parseLong(words[3].substring("count=".length()));
            int size = Integer.parseInt(words[4].substring("size=".length()));
            answer(blast(node, peer, count, size));
        }
    }

    public static void main(String[] arguments) throws Exception {
        OtpNode node = new OtpNode(arguments[1] + "@127.0.0.1", arguments[2]);
        if (arguments[0].equals("serve")) {
            serve(node);
        } else {
            drive(node);
        }
        System.exit(0);
    }
}
