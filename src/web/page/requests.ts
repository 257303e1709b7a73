/**
 * Peers that wait for consent, and the answer to them. A button asks once more, with all that the request says: lists move
 * while one reads them, and consent is not given by a slip of the hand.
 */
import { duration } from "../../base/readable.ts";
import { termsWords } from "../../control/lease-words.ts";
import { peerName } from "../../control/peer-name.ts";
import type { TrustRequest } from "../../control/trust-api.ts";
import type { Role, ShownRequest, State } from "../view.ts";
import { find, make, makeFact, type Row, Rows, setText } from "./dom.ts";
import { problemOf } from "./live-stream.ts";

type Verb = "approve" | "deny";

export class Requests {
  readonly #rows = new Rows<TrustRequest>(
    find("#requests-list"),
    (request) => JSON.stringify(shownPart(request)),
    () => this.#makeRow(),
  );
  readonly #dialog = find<HTMLDialogElement>("#answer");
  readonly #token: () => string;
  #role: Role = "look";
  #submit: (() => void) | undefined;

  /** `token`: the one in use. */
  constructor(token: () => string) {
    this.#token = token;
    find("#answer .primary").addEventListener("click", () => this.#submit?.());
  }

  setRole(role: Role): void {
    this.#role = role;
    find("#requests-hint").hidden = role === "change";
    const badge = find("#role");
    badge.hidden = false;
    setText(badge, role === "change" ? "may approve and deny" : "read only");
    for (const buttons of document.querySelectorAll<HTMLElement>("#requests-list .buttons")) {
      buttons.hidden = role !== "change";
    }
  }

  show({ requests, requestsInAll }: State): void {
    this.#rows.show(requests);
    find("#requests").hidden = requests.length === 0;
    setText(find("#requests-title .count"), String(requestsInAll));
    const waiting = requestsInAll === 0 ? "" : `(${requestsInAll}) `;
    document.title = `${waiting}${find("#host").textContent || "pilot-tun"}`;
  }

  #makeRow(): Row<TrustRequest> {
    const name = make("strong", "line");
    const terms = make("span", "line");
    const identity = make("span", "line quiet small");
    const fingerprint = make("span", "line quiet mono");
    const reason = make("blockquote");
    const buttons = make("p", "buttons");
    const what = make("div", "what", name, reason, terms, identity, fingerprint);
    let shown: TrustRequest | undefined;
    for (const verb of ["approve", "deny"] as const) {
      const button = make("button", verb === "approve" ? "primary" : "", `${VERB_WORDS[verb]}…`);
      button.type = "button";
      button.addEventListener("click", () => shown !== undefined && this.#ask(verb, shown));
      buttons.append(button);
    }
    buttons.hidden = this.#role !== "change";
    return {
      element: make("li", "", what, buttons),
      show: (request) => {
        shown = request;
        setText(name, peerName(request));
        setText(reason, request.reason);
        reason.hidden = request.reason === "";
        setText(terms, `asks for ${askedFor(request)}`);
        setText(identity, `${request.pilot} · ${request.address} · asked ${duration(request.askedAgoS)} ago`);
        setText(fingerprint, request.fingerprint ?? "key not known");
        for (const button of buttons.children) {
          button.setAttribute("aria-label", `${button.textContent} ${peerName(request)}`);
        }
      },
    };
  }

  #ask(verb: Verb, request: TrustRequest): void {
    const button = find<HTMLButtonElement>(".primary", this.#dialog);
    const failure = find(".notice", this.#dialog);
    setText(find("#answer-title"), `${VERB_WORDS[verb]} ${peerName(request)}?`);
    const facts = [
      ["Says", request.reason || "nothing"],
      ["Asks for", askedFor(request)],
      ["Pilot address, node", `${request.pilot}, ${request.node}`],
      ["Key; compare it with what the peer's operator tells you", request.fingerprint ?? "not known"],
    ].map(([title, text]) => {
      const { element, value } = makeFact(title!);
      setText(value, text!);
      return element;
    });
    find("dl", this.#dialog).replaceChildren(...facts);
    setText(find(".hint", this.#dialog), verb === "approve" ? APPROVED : DENIED);
    setText(button, VERB_WORDS[verb]);
    button.className = verb === "approve" ? "primary" : "primary danger";
    button.disabled = false;
    failure.hidden = true;
    this.#submit = () => {
      button.disabled = true;
      void this.#send(verb, request).then((problem) => {
        button.disabled = false;
        failure.hidden = problem === "";
        setText(failure, problem);
        if (problem === "") this.#dialog.close();
      });
    };
    this.#dialog.showModal();
  }

  /** What went wrong; empty when nothing did. */
  async #send(verb: Verb, request: TrustRequest): Promise<string> {
    try {
      const response = await fetch(`/api/${verb}`, {
        method: "POST",
        headers: { authorization: `Bearer ${this.#token()}`, "content-type": "application/json" },
        body: JSON.stringify(shownPart(request)),
      });
      if (response.ok) return "";
      const { code, message, hint } = await problemOf(response);
      return `${message} [${code}]. ${hint}`;
    } catch {
      return "The program behind this page does not answer; nothing was changed as far as this page knows.";
    }
  }
}

function shownPart({ node, fingerprint, reason, ports, forS, maxBytes }: TrustRequest): ShownRequest {
  return { node, fingerprint, reason, ports, forS, maxBytes };
}

function askedFor({ ports, forS, maxBytes }: TrustRequest): string {
  const isUnlimited = ports === null && forS === null && maxBytes === null;
  return isUnlimited ? "everything, both ways, without end" : termsWords(ports, forS, maxBytes);
}

const VERB_WORDS = { approve: "Approve", deny: "Deny" } as const;
const APPROVED =
  "It may then reach this node within what it asks for and the policy allows. Taken back by pilot-tun trust revoke.";
const DENIED = "The peer is told. It may ask again.";
