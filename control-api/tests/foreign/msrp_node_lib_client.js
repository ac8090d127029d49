// msrp-node-lib (npm) as an MSRP client, driven over stdin and stdout.
//
// Arguments: `--probe` to say whether the library is there, else none. What it says and takes is
// told in foreign/mod.rs. The library carries text only, and knows no AUTH and no NICKNAME.
"use strict";

const readline = require("readline");

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const config = {
  host: "127.0.0.1",
  port: 9,
  sessionName: "foreign",
  acceptTypes: "*",
  setup: "active",
  enableHeartbeats: false,
  traceMsrp: false,
};
const msrp = require("msrp-node-lib")(config, silent);

const say = (...words) => process.stdout.write(words.join(" ") + "\n");

if (process.argv[2] === "--probe") {
  say("ready");
  process.exit(0);
}

const session = msrp.SessionController.createSession();
// Responses name a transaction, commands a message.
const messages = new Map();
session.on("messageSent", (message) => messages.set(message.tid, message));
session.on("response", (response) => {
  const message = messages.get(response.tid);
  messages.delete(response.tid);
  if (!message) return;
  if (!message.body) return say("connected");
  if (message.continuationFlag === "$") say("response", message.getHeader("message-id"), response.status);
});
session.on("message", (message) => {
  if (!message.body) return;
  const body = Buffer.from(message.body, "utf8").toString("base64");
  say("message", message.messageId, message.contentType, body);
});
session.on("report", (report) => say("report", report.messageId, report.status));
session.on("socketClose", () => say("closed"));

const commands = {
  connect(...path) {
    const sdp = `v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n` +
      `m=message 9 TCP/MSRP *\r\na=accept-types:*\r\na=setup:passive\r\na=path:${path.join(" ")}\r\n`;
    session.setDescription(sdp, () => {}, (error) => say("refused", error));
  },
  // Without reports the library asks for no answers either, so it always asks for both.
  send(type, body) {
    const text = Buffer.from(body, "base64").toString("utf8");
    const sent = (message) => say("sent", message.getHeader("message-id"));
    session.sendMessage(text, sent, type);
  },
  quit() {
    process.exit(0);
  },
};

session.getDescription(
  () => say("path", session.localEndpoint.uri),
  (error) => say("refused", error),
);
readline.createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [command, ...words] = line.trim().split(" ");
    commands[command](...words);
  })
  .on("close", () => process.exit(0));
