/** The page: takes the token out of the address, follows the server's stream, and shows what it tells. */
import { duration } from "../../base/readable.ts";
import type { Problem } from "../../control/api.ts";
import type { View } from "../view.ts";
import { find, keepTableRoles, make, setText } from "./dom.ts";
import { Happenings, problemRow } from "./happenings.ts";
import { follow } from "./live-stream.ts";
import { NodeFacts } from "./node-facts.ts";
import { PeerRows } from "./peer-rows.ts";
import { Requests } from "./requests.ts";

const TOKEN = /^#([A-Za-z0-9_-]{32})$/;
const STORED = "pilot-tun-token";

keepTableRoles();
const node = new NodeFacts();
const peers = new PeerRows();
const happenings = new Happenings();
const requests = new Requests(() => sessionStorage.getItem(STORED) ?? "");
const failureRow = problemRow("bad");
find("#failure").append(...failureRow.element.childNodes, make("p", "quiet"));

/** By this machine's clock, for what is said about the age of what is shown. */
let lastSeenMs: number | undefined;
let current = new AbortController();

addEventListener("hashchange", () => TOKEN.test(location.hash) && begin());
setInterval(sayAge, 1_000);
begin();

/** With the token of the address, else with the one this tab had before it was loaded anew. */
function begin(): void {
  const token = TOKEN.exec(location.hash)?.[1];
  if (token !== undefined) {
    sessionStorage.setItem(STORED, token);
    // Neither over somebody's shoulder nor in a bookmark.
    history.replaceState(null, "", location.pathname);
  }
  current.abort();
  current = new AbortController();
  showConnection("unknown", "Connecting…");
  void follow(
    sessionStorage.getItem(STORED) ?? "",
    {
      hello: ({ role, history: points }) => {
        peers.setHistory(points);
        requests.setRole(role);
      },
      view: show,
      lost: (problem, isFinal) => showFailure(problem, isFinal ? "Not connected" : "Connection lost, trying again"),
    },
    current.signal,
  );
}

function show(view: View): void {
  if (view.state === null) {
    return showFailure(
      view.failure!,
      view.failure!.code === "not_running" ? "Daemon not running" : "No answer from the daemon",
    );
  }
  lastSeenMs = Date.now();
  find("#failure").hidden = true;
  find("#content").hidden = false;
  showConnection("live", "Live");
  node.show(view.state);
  requests.show(view.state);
  peers.show(view, view.state);
  happenings.show(view.state);
}

function showFailure(problem: Problem, words: string): void {
  showConnection("down", words);
  failureRow.show(problem);
  find("#failure").hidden = false;
  sayAge();
}

function showConnection(state: "live" | "down" | "unknown", words: string): void {
  document.body.dataset.daemon = state;
  setText(find("#connection"), words);
}

function sayAge(): void {
  if (document.body.dataset.daemon !== "down") return;
  const age =
    lastSeenMs === undefined ? "" : `What is shown below is ${duration((Date.now() - lastSeenMs) / 1000)} old.`;
  setText(find("#failure > p:last-child"), age);
}
