/**
 * One question to this node as a nameserver (pilot protocol §8): a line of text, an answer, the end. A node answers for itself
 * and for the networks that it shares with who asks; it tells nobody of its other peers, and keeps no records for others.
 *
 *     QUERY A <name>            A <name> <address>
 *     QUERY N <name>            N <name> <network>
 *     QUERY S <network> <port>  S
 *     anything else             ERR <why>
 */
import { fromUtf8, utf8 } from "../../base/bytes.ts";
import type { Instant } from "../../base/instant.ts";
import type { Stream } from "../../stream/stream.ts";
import { formatPilotAddress } from "../../wire/address.ts";
import type { NetworkId, NodeId, PilotAddress } from "../../wire/ids.ts";
import type { ServiceStream } from "./own-services.ts";

export interface NamesOfSelf {
  readonly local: NodeId;
  hostname(): string | undefined;
  /** The network of that name, if this node and the other are both in it. */
  sharedNetwork(name: string, other: NodeId): NetworkId | undefined;
}

export class NameQuery implements ServiceStream {
  readonly #stream: Stream;
  readonly #names: NamesOfSelf;
  #isAnswered = false;

  constructor(stream: Stream, names: NamesOfSelf) {
    this.#stream = stream;
    this.#names = names;
  }

  /** The question is what came in the first segment, as the reference reads it; the rest is thrown away. */
  pump(now: Instant): void {
    for (let bytes = this.#stream.read(now); bytes !== undefined; bytes = this.#stream.read(now)) {
      this.#answer(fromUtf8(bytes.subarray(0, MAX_QUESTION_BYTES)) ?? "", now);
    }
  }

  handleEnded(now: Instant): void {
    this.pump(now);
    this.#answer("", now);
  }

  #answer(question: string, now: Instant): void {
    if (this.#isAnswered) return;
    this.#isAnswered = true;
    const answer = answerTo(question, this.#stream.remote, this.#names);
    this.#stream.write(utf8(`${answer}\n`), now); // a new stream has room for a line
    this.#stream.closeWrite(now);
  }
}

function answerTo(question: string, asker: PilotAddress, names: NamesOfSelf): string {
  const [verb, type, name, ...rest] = question.trim().split(/\s+/);
  if (verb !== "QUERY" || name === undefined) return "ERR only QUERY is answered here";
  switch (`${type} ${rest.length}`) {
    case "A 0": {
      if (name !== names.hostname()) return "ERR not found";
      return `A ${name} ${formatPilotAddress({ network: asker.network, node: names.local })}`;
    }
    case "N 0": {
      const network = names.sharedNetwork(name, asker.node);
      return network === undefined ? "ERR not found" : `N ${name} ${network}`;
    }
    case "S 1":
      return "S"; // nobody registers services here
    default:
      return "ERR a query is A <name>, N <name> or S <network> <port>";
  }
}

const MAX_QUESTION_BYTES = 1_024;
