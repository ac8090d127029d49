// The MSRP Java stack (javax.net.msrp, MSRP-OSS) as an MSRP client, driven over stdin and stdout.
//
// Arguments: `--probe` to say whether the library is there, else none. What it says and takes is
// told in foreign/mod.rs. The library knows neither TLS nor AUTH, and keeps 200s to itself.

import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import javax.net.msrp.IncomingMessage;
import javax.net.msrp.MemoryDataContainer;
import javax.net.msrp.Message;
import javax.net.msrp.OutgoingMessage;
import javax.net.msrp.Session;
import javax.net.msrp.SessionListener;
import javax.net.msrp.Transaction;
import javax.net.msrp.TransactionResponse;
import javax.net.msrp.events.MessageAbortedEvent;

public class MsrpJavaClient implements SessionListener {
    /** Room for a message that does not say how long it is. */
    private static final int UNSIZED_BYTES_MAX = 4 << 20;

    public static void main(String[] arguments) throws Exception {
        if (Arrays.asList(arguments).contains("--probe")) {
            Session.class.getName();
            say("ready");
            return;
        }
        java.util.logging.Logger.getLogger("").setLevel(java.util.logging.Level.OFF);
        Session session = Session.create(false, false, InetAddress.getByName("127.0.0.1"));
        session.setListener(new MsrpJavaClient());
        say("path", session.getURI().toString());
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.trim().split(" ");
            switch (words[0]) {
                case "connect" -> {
                    ArrayList<URI> path = new ArrayList<>();
                    for (String uri : Arrays.copyOfRange(words, 1, words.length)) {
                        path.add(URI.create(uri));
                    }
                    session.setToPath(path);
                    session.sendAliveMessage();
                    say("connected");
                }
                case "send" -> send(session, words);
                case "nickname" -> session.requestNickname(words[1]);
                case "quit" -> System.exit(0);
                default -> say("unknown", words[0]);
            }
        }
        System.exit(0);
    }

    private static void send(Session session, String[] words) throws Exception {
        File file = File.createTempFile("msrp", null);
        file.deleteOnExit();
        Files.write(file.toPath(), Base64.getDecoder().decode(words[2]));
        OutgoingMessage message = new OutgoingMessage(words[1], file);
        message.setSuccessReport(Arrays.asList(words).contains("report"));
        session.sendMessage(message);
        say("sent", message.getMessageID());
    }

    private static synchronized void say(String... words) {
        System.out.println(String.join(" ", words));
        System.out.flush();
    }

    @Override
    public boolean acceptHook(Session session, IncomingMessage message) {
        long size = message.getSize();
        message.setDataContainer(new MemoryDataContainer(size < 0 ? UNSIZED_BYTES_MAX : (int) size));
        return true;
    }

    @Override
    public void receivedMessage(Session session, IncomingMessage message) {
        if (message.getContentType() == null) {
            return;
        }
        try {
            ByteBuffer data = message.getDataContainer().get(0, message.getSize());
            byte[] body = new byte[data.remaining()];
            data.get(body);
            String text = Base64.getEncoder().encodeToString(body);
            say("message", message.getMessageID(), message.getContentType(), text);
        } catch (Exception error) {
            say("broken", error.toString());
        }
    }

    @Override
    public void receivedReport(Session session, Transaction report) {
        say("report", report.getMessageID(), String.valueOf(report.getStatusHeader().getStatusCode()));
    }

    @Override
    public void receivedNickname(Session session, Transaction request) {}

    @Override
    public void receivedNickNameResult(Session session, TransactionResponse result) {
        say("response", "nickname", String.valueOf(result.getResponseCode()));
    }

    @Override
    public void abortedMessageEvent(MessageAbortedEvent event) {
        say("aborted", event.getMessage().getMessageID(), String.valueOf(event.getReason()));
    }

    @Override
    public void updateSendStatus(Session session, Message message, long sent) {}

    @Override
    public void connectionLost(Session session, Throwable cause) {
        say("closed");
    }
}
