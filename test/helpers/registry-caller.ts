/** Nodes that call a `RegistryServer` in memory, with a clock that the test moves. */
import { toBase64, utf8 } from "../../src/base/bytes.ts";
import { type Instant, instant, type WallClock } from "../../src/base/instant.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { MemoryStore } from "../../src/rendezvous/memory-store.ts";
import { type RegistryLimits, RegistryServer } from "../../src/rendezvous/registry.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { jsonRequest } from "../../src/rendezvous/request-frame.ts";
import type { Store } from "../../src/rendezvous/store.ts";
import { type NodeId, nodeId } from "../../src/wire/ids.ts";
import { signedText } from "../../src/wire/registry.ts";

export const crypto = new NodeCrypto();
export type Reply = Record<string, unknown>;

/** The text of a request in, the text of its reply out. */
export function askText(
  server: RegistryServer,
  text: string,
  conversation: Conversation,
  now: Instant,
  wall: WallClock,
): string {
  return server.handleFrame(jsonRequest(utf8(text)), conversation, now, wall) as string;
}

export class RegistryLab {
  readonly server: RegistryServer;
  readonly store: Store;
  now: Instant = instant(1000);
  wall = 1_800_000_000_000 as WallClock;

  constructor(options: { store?: Store; limits?: Partial<RegistryLimits>; adminToken?: string } = {}) {
    this.store = options.store ?? new MemoryStore();
    this.server = new RegistryServer({
      store: this.store,
      crypto,
      startedAt: this.now,
      startedAtWall: this.wall,
      ...(options.limits === undefined ? {} : { limits: options.limits }),
      ...(options.adminToken === undefined ? {} : { adminToken: options.adminToken }),
    });
  }

  pass(ms: number): void {
    this.now = instant(this.now + ms);
    this.wall = (this.wall + ms) as WallClock;
  }

  ask(request: object | string, conversation = new Conversation("198.51.100.1")): Reply {
    const text = typeof request === "string" ? request : JSON.stringify(request);
    return JSON.parse(askText(this.server, text, conversation, this.now, this.wall)) as Reply;
  }

  notices(): NodeId[] {
    const noticed: NodeId[] = [];
    for (let node = this.server.pollNotice(); node !== undefined; node = this.server.pollNotice()) noticed.push(node);
    return noticed;
  }

  /** A registered node; `seed` makes its key. */
  join(seed: number, registration: object = {}): Caller {
    const caller = new Caller(this, seed);
    caller.register(registration);
    return caller;
  }
}

export class Caller {
  readonly lab: RegistryLab;
  readonly seed: Uint8Array;
  readonly publicKey: Uint8Array;
  conversation: Conversation;
  node = nodeId(0);

  constructor(lab: RegistryLab, seed: number) {
    this.lab = lab;
    this.seed = new Uint8Array(32).fill(seed);
    this.publicKey = crypto.ed25519PublicKey(this.seed);
    this.conversation = new Conversation(`198.51.100.${seed}`);
  }

  get key(): string {
    return toBase64(this.publicKey);
  }

  sign(text: string): string {
    return toBase64(crypto.ed25519Sign(this.seed, utf8(text)));
  }

  ask(request: object): Reply {
    return this.lab.ask(request, this.conversation);
  }

  register(registration: object = {}): Reply {
    const reply = this.ask({ type: "register", listen_addr: "0.0.0.0:4000", public_key: this.key, ...registration });
    if (reply["type"] === "register_ok") this.node = reply["node_id"] as NodeId;
    return reply;
  }

  registerSigned(registration: object = {}): Reply {
    return this.register({ signature: this.sign(signedText.register("0.0.0.0:4000", this.key)), ...registration });
  }

  heartbeat(): Reply {
    return this.signed("heartbeat", signedText.heartbeat(this.node));
  }

  resolve(target: Caller | number): Reply {
    const node = nodeId(typeof target === "number" ? target : target.node);
    const signature = this.sign(signedText.resolve(this.node, node));
    return this.ask({ type: "resolve", node_id: node, requester_id: this.node, signature });
  }

  reportTrust(peer: Caller): Reply {
    return this.signed("report_trust", signedText.reportTrust(this.node, peer.node), { peer_id: peer.node });
  }

  revokeTrust(peer: Caller): Reply {
    return this.signed("revoke_trust", signedText.revokeTrust(this.node, peer.node), { peer_id: peer.node });
  }

  requestHandshake(peer: Caller, justification = "please"): Reply {
    const signature = this.sign(signedText.requestHandshake(this.node, peer.node));
    return this.ask({
      type: "request_handshake",
      from_node_id: this.node,
      to_node_id: peer.node,
      justification,
      signature,
    });
  }

  respondHandshake(peer: Caller, accept: boolean): Reply {
    const text = signedText.respondHandshake(this.node, peer.node);
    return this.signed("respond_handshake", text, { peer_id: peer.node, accept });
  }

  poll(): Reply {
    return this.signed("poll_handshakes", signedText.pollHandshakes(this.node));
  }

  signed(type: string, text: string, fields: object = {}): Reply {
    return this.ask({ type, node_id: this.node, signature: this.sign(text), ...fields });
  }
}
