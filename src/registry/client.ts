/**
 * The conversation with a registry, from a node's side, without its socket: texts to send come out, replies, time and
 * commands go in. One request is in flight at a time. After every connect it registers first, then keeps itself listed
 * (heartbeat), polls handshakes, and sends what was queued.
 *
 *   down ──connecting──► connecting ──connected──► registering ──register_ok──► ok
 *    ▲                        │                        ▲  │                      │
 *    └──────── disconnected ──┴────────────────────────┼──┴──────────────────────┤
 *                                                      └── 3 heartbeats failed, or "not found"
 *
 * Drain after each input: `pollRequest`, `pollEvent` until undefined, then `pollTimeout`; and end the connection when
 * `wantsDisconnect` says so, because a reply that comes late would be taken for the next one.
 */
import type { Crypto } from "../base/crypto.ts";
import { type Endpoint, formatEndpoint, sameEndpoint } from "../base/endpoint.ts";
import { after, type Deadline, earlier, type Instant, instant } from "../base/instant.ts";
import type { NodeId } from "../wire/ids.ts";
import { integerField, parseRegistryMessage, type RegistryMessage, signedText } from "../wire/registry.ts";
import {
  commandKey,
  commandRequest,
  isConsentWith,
  isDurable,
  type RegistryCommand,
  type RegistryIdentity,
  RequestSigner,
} from "./commands.ts";
import {
  commandEvent,
  errorText,
  failureEvent,
  handshakeEvents,
  type RegistryEvent,
  type RegistryState,
  registeredEvent,
} from "./events.ts";
import { HandshakePolls } from "./handshake-polls.ts";
import { KeyRotation, type KeyRotationEvent } from "./key-rotation.ts";
import { NETWORK_REQUEST_TYPES, type NetworkCommand } from "./network-commands.ts";

export interface ListenAddresses {
  /** The tunnel socket's own port, said when nobody has told us yet how it looks from outside. */
  readonly port: number;
  /** How a beacon sees the tunnel socket, or what the operator configured. */
  readonly observed?: Endpoint;
  readonly lan: readonly Endpoint[];
  /** Peers shall reach this node through the relay, and not look for a direct way. */
  readonly relayOnly?: boolean;
}

export interface RegistryClientOptions {
  readonly crypto: Crypto;
  readonly identity: RegistryIdentity;
  readonly listen: ListenAddresses;
  readonly hostname?: string | undefined;
  readonly isPublic: boolean;
  /** Undefined leaves those that the registry has. */
  readonly tags?: readonly string[] | undefined;
  readonly version?: string | undefined;
}

type InFlight =
  | { readonly kind: "register" | "heartbeat" | "poll" | "rotate" | "settle-rotation" }
  | { readonly kind: "command"; readonly command: RegistryCommand };

export class RegistryClient {
  readonly #crypto: Crypto;
  readonly #signer: RequestSigner;
  readonly #version: string | undefined;
  #listen: ListenAddresses;
  /** What the last registration said. */
  #toldListen: ListenAddresses | undefined;
  #hostname: string | undefined;
  #tags: readonly string[] | undefined;
  #isPublic: boolean;

  #now: Instant = instant(0);
  #state: RegistryState = "down";
  #stateError: string | undefined;
  #stateSince: Instant = instant(0);
  #node: NodeId | undefined;
  #rendezvous: string | undefined;
  #isConnected = false;
  #wantsDisconnect = false;
  #inFlight: InFlight | undefined;
  #replyDue: Instant = instant(0);
  /** By `commandKey`, in the order to send; bounded by MAX_QUEUE, see #enqueue. */
  readonly #queue = new Map<string, RegistryCommand>();
  /** Bounded by one reply's lists plus the queue: it is drained after each input. */
  #events: RegistryEvent[] = [];

  #registerAt: Instant | undefined;
  #registeredAt: Instant | undefined;
  #registerBackoffMs = FIRST_BACKOFF_MS;
  #heartbeatAt: Instant = instant(0);
  #heartbeatFailures = 0;
  #serverTime: { readonly unixS: number | undefined; readonly at: Instant } | undefined;
  readonly #polls = new HandshakePolls();
  #queueResumesAt: Instant = instant(0);
  #saidVisibility = false;
  /** By the operator's word, until the next start. */
  #deregistered = false;
  #rotation: KeyRotation | undefined;

  constructor(options: RegistryClientOptions) {
    this.#crypto = options.crypto;
    this.#signer = new RequestSigner(options.crypto, options.identity);
    this.#version = options.version;
    this.#listen = options.listen;
    this.#hostname = options.hostname;
    this.#isPublic = options.isPublic;
    this.#tags = options.tags;
  }

  get state(): RegistryState {
    return this.#state;
  }

  /** As told to the registry, which may have refused it. */
  get hostname(): string | undefined {
    return this.#hostname;
  }

  /** The registry's clock, in whole seconds, as of its last answer to a heartbeat; undefined before the first on a registration. */
  get serverTime(): { readonly unixS: number | undefined; readonly at: Instant } | undefined {
    return this.#serverTime;
  }

  /** Why the state is not `ok`, when something said why. */
  get stateError(): string | undefined {
    return this.#stateError;
  }

  get stateSince(): Instant {
    return this.#stateSince;
  }

  /** The number that the registry gave us last. */
  get node(): NodeId | undefined {
    return this.#node;
  }

  /** The rendezvous that the last registration was with, if it has an id. */
  get rendezvous(): string | undefined {
    return this.#rendezvous;
  }

  /** The reply is overdue, or came unasked: nothing on this connection can be matched any more. */
  get wantsDisconnect(): boolean {
    return this.#wantsDisconnect;
  }

  handleConnecting(now: Instant): void {
    this.#now = now;
    this.#enter("connecting", this.#stateError); // until it is mended, the reason stands
  }

  handleConnected(now: Instant): void {
    this.#now = now;
    this.#isConnected = true;
    this.#wantsDisconnect = false;
    this.#inFlight = undefined;
    this.#registerAt = this.#deregistered ? undefined : now;
    this.#registerBackoffMs = FIRST_BACKOFF_MS;
    this.#queueResumesAt = now;
    this.#enter("registering", this.#deregistered ? DEREGISTERED : this.#stateError);
  }

  /** Also for an attempt that did not connect. */
  handleDisconnected(now: Instant, error?: string): void {
    this.#now = now;
    this.#isConnected = false;
    this.#wantsDisconnect = false;
    const lost = this.#inFlight;
    this.#inFlight = undefined;
    const later = lost === undefined ? [] : [...this.#queue]; // what was lost is said again before these
    if (lost?.kind === "command") this.#retryOrFail(lost.command, NOT_CONNECTED);
    for (const [key] of later) this.#queue.delete(key);
    for (const [key, command] of later) this.#queue.set(key, command);
    const kept = this.#rotation?.handleDisconnected(NOT_CONNECTED);
    if (kept !== undefined) this.#endRotation(kept);
    this.#failQueries(NOT_CONNECTED);
    this.#enter("down", error);
  }

  handleReply(text: string, now: Instant): void {
    this.#now = now;
    const answered = this.#inFlight;
    this.#inFlight = undefined;
    if (answered === undefined) {
      this.#wantsDisconnect = true;
      return;
    }
    const reply = parseRegistryMessage(text) ?? {};
    const isOk = reply["type"] === `${REPLY_TYPES[inFlightType(answered)]}_ok`;
    if (isOk) this.#succeeded(answered, reply);
    else this.#refused(answered, errorText(reply));
  }

  handleTimeout(now: Instant): void {
    this.#now = now;
    if (this.#inFlight !== undefined && now >= this.#replyDue) this.#wantsDisconnect = true;
  }

  /** Where the tunnel socket is reachable has changed: the registry is told at once. */
  setListen(listen: ListenAddresses): void {
    if (sameListen(this.#listen, listen)) return;
    this.#listen = listen;
    // A registration that is on its way says the old one; its reply is followed by another.
    if (this.#state === "ok" && this.#inFlight?.kind !== "register") this.#registerAt ??= this.#now;
  }

  lookup(node: NodeId): void {
    this.#enqueue({ kind: "lookup", node });
  }

  resolve(node: NodeId): void {
    this.#enqueue({ kind: "resolve", node });
  }

  resolveHostname(name: string): void {
    this.#enqueue({ kind: "resolve-hostname", name });
  }

  requestHandshake(node: NodeId, reason: string): void {
    this.#enqueue({ kind: "request-handshake", node, reason });
  }

  respondHandshake(node: NodeId, accept: boolean): void {
    this.#enqueue({ kind: "respond-handshake", node, accept });
  }

  reportTrust(node: NodeId): void {
    this.#enqueue({ kind: "report-trust", node });
  }

  /** Whether this node and another are a pair; `trust-checked` tells. */
  checkTrust(node: NodeId): void {
    this.#enqueue({ kind: "check-trust", node });
  }

  /** Also takes back what waits here to be said of consent with the peer. */
  revokeTrust(node: NodeId): void {
    for (const [key, command] of this.#queue) if (isConsentWith(command, node)) this.#queue.delete(key);
    this.#enqueue({ kind: "revoke-trust", node });
  }

  /** The empty name gives the name up. */
  setHostname(name: string): void {
    this.#hostname = name === "" ? undefined : name;
    this.#enqueue({ kind: "set-hostname", name });
  }

  setVisibility(isPublic: boolean): void {
    this.#isPublic = isPublic;
    this.#enqueue({ kind: "set-visibility", isPublic });
  }

  setTags(tags: readonly string[]): void {
    this.#tags = tags;
    this.#enqueue({ kind: "set-tags", tags });
  }

  /** The answer comes as a `network` event. */
  network(command: NetworkCommand): void {
    this.#enqueue(command);
  }

  /**
   * Has the registry know this node by another key, which must be on disk already. `key-rotated` or `key-kept` says what
   * came of it, perhaps after a reconnection.
   */
  rotateKey(next: RegistryIdentity): void {
    const isReady = this.#isConnected && this.#state === "ok" && this.#rotation === undefined;
    if (isReady) this.#rotation = new KeyRotation(next);
    else this.#events.push({ kind: "key-kept", error: this.#rotation === undefined ? NOT_CONNECTED : ROTATING });
  }

  /** The last thing to say, also on later connections: this client does not register again. */
  deregister(): void {
    this.#enqueue({ kind: "deregister" });
  }

  /** Has the next heartbeat sent now: it brings the registry's time. */
  heartbeatNow(): void {
    this.#heartbeatAt = this.#now;
  }

  /** Asks for waiting handshakes now, or soon: anybody can send the word that some wait in a beacon's name. */
  pollHandshakes(): void {
    this.#polls.notice(this.#now);
  }

  /** An answer is awaited: until then handshakes are polled every two seconds. */
  expectHandshakes(until: Instant): void {
    this.#polls.expect(until, this.#now);
  }

  /** The JSON text to send next. */
  pollRequest(): string | undefined {
    if (!this.#isConnected || this.#inFlight !== undefined || this.#wantsDisconnect) return undefined;
    const next = this.#nextRequest();
    if (next === undefined) return undefined;
    this.#inFlight = next.as;
    this.#replyDue = after(this.#now, REPLY_TIMEOUT_MS);
    return JSON.stringify(next.request);
  }

  pollEvent(): RegistryEvent | undefined {
    return this.#events.shift();
  }

  pollTimeout(): Deadline | undefined {
    if (!this.#isConnected || this.#wantsDisconnect) return undefined;
    if (this.#inFlight !== undefined) return { at: this.#replyDue, reason: "registry reply" };
    let next: Deadline | undefined;
    if (this.#registerAt !== undefined) next = { at: this.#registerAt, reason: "register" };
    if (this.#state !== "ok") return next;
    next = earlier(next, { at: this.#heartbeatAt, reason: "registry heartbeat" });
    next = earlier(next, { at: this.#polls.at, reason: "handshake poll" });
    if (this.#queue.size > 0) next = earlier(next, { at: this.#queueResumesAt, reason: "registry queue" });
    return next;
  }

  #nextRequest(): { readonly as: InFlight; readonly request: RegistryMessage } | undefined {
    if (this.#rotation?.isUnsettled === true && this.#node !== undefined) {
      return { as: { kind: "settle-rotation" }, request: this.#rotation.question(this.#node) };
    }
    if (this.#registerAt !== undefined && this.#now >= this.#registerAt) {
      return { as: { kind: "register" }, request: this.#registration() };
    }
    const node = this.#node;
    if (this.#state !== "ok" || node === undefined) return undefined;
    if (this.#rotation?.isWanted === true) {
      return { as: { kind: "rotate" }, request: this.#rotation.request(node, this.#signer) };
    }
    if (this.#now >= this.#heartbeatAt) {
      const signature = this.#signer.sign(signedText.heartbeat(node));
      return { as: { kind: "heartbeat" }, request: { type: "heartbeat", node_id: node, signature } };
    }
    if (this.#now >= this.#polls.at) {
      this.#polls.handleSent(this.#now);
      const signature = this.#signer.sign(signedText.pollHandshakes(node));
      return { as: { kind: "poll" }, request: { type: "poll_handshakes", node_id: node, signature } };
    }
    const command = this.#now >= this.#queueResumesAt ? this.#dequeue() : undefined;
    if (command === undefined) return undefined;
    return { as: { kind: "command", command }, request: commandRequest(command, node, this.#signer) };
  }

  /** `owner` is never sent: it would let another key with the same text take our number (protocol §11.9). */
  #registration(): RegistryMessage {
    const { observed, port, lan, relayOnly } = this.#listen;
    this.#toldListen = this.#listen;
    const listenAddr = observed === undefined ? `0.0.0.0:${port}` : formatEndpoint(observed);
    const publicKey = this.#signer.publicKeyText;
    return {
      type: "register",
      listen_addr: listenAddr,
      public_key: publicKey,
      signature: this.#signer.sign(signedText.register(listenAddr, publicKey)),
      public: this.#isPublic,
      ...(this.#hostname === undefined ? {} : { hostname: this.#hostname }),
      ...(lan.length === 0 ? {} : { lan_addrs: lan.map(formatEndpoint) }),
      ...(relayOnly === true ? { relay_only: true } : {}),
      ...(this.#version === undefined ? {} : { version: this.#version }),
    };
  }

  #succeeded(answered: InFlight, reply: RegistryMessage): void {
    switch (answered.kind) {
      case "register":
        this.#registered(reply);
        return;
      case "heartbeat":
        this.#heartbeatFailures = 0;
        this.#heartbeatAt = after(this.#now, HEARTBEAT_MS);
        this.#serverTime = { unixS: integerField(reply, "time"), at: this.#now };
        return;
      case "poll":
        this.#polls.handleAnswered(this.#now);
        this.#events.push(...handshakeEvents(reply));
        return;
      case "rotate":
      case "settle-rotation": {
        const event = this.#rotation?.handleReply(reply, this.#node!);
        if (event === undefined) this.#wantsDisconnect = true;
        else this.#endRotation(event);
        return;
      }
      case "command":
        this.#events.push(commandEvent(answered.command, reply));
        if (answered.command.kind !== "deregister") return;
        this.#deregistered = true;
        this.#enter("registering", DEREGISTERED);
    }
  }

  #endRotation(event: KeyRotationEvent): void {
    this.#rotation = undefined;
    if (event.kind === "key-rotated") this.#signer.replace(event.identity);
    this.#events.push(event);
  }

  #registered(reply: RegistryMessage): void {
    const event = registeredEvent(reply);
    if (event === undefined) {
      this.#registrationRefused(errorText(reply));
      return;
    }
    this.#node = event.node;
    this.#rendezvous = event.rendezvous;
    this.#registerAt = this.#toldListen === this.#listen ? undefined : this.#now;
    this.#registeredAt = this.#now;
    this.#registerBackoffMs = FIRST_BACKOFF_MS;
    this.#heartbeatAt = after(this.#now, HEARTBEAT_MS);
    this.#heartbeatFailures = 0;
    this.#serverTime = undefined; // the machine may have slept, while its instants stood still
    this.#polls.handleRegistered(this.#now);
    this.#events.push(event);
    this.#enter("ok");
    if (this.#tags !== undefined) this.setTags(this.#tags); // a registration has no place for them
    if (this.#saidVisibility) return;
    this.#saidVisibility = true; // once per start: registries that do not know `public` in a registration keep the old value
    this.#enqueue({ kind: "set-visibility", isPublic: this.#isPublic });
  }

  #refused(answered: InFlight, error: string): void {
    switch (answered.kind) {
      case "register":
        this.#registrationRefused(error);
        return;
      case "heartbeat":
        this.#heartbeatRefused(error);
        return;
      case "poll":
        this.#polls.handleRefused(this.#now);
        return;
      case "rotate":
        return this.#endRotation({ kind: "key-kept", error });
      case "settle-rotation":
        this.#wantsDisconnect = true; // asked again on the next connection
        return;
      case "command":
        this.#commandRefused(answered.command, error);
    }
  }

  #registrationRefused(error: string): void {
    const random = this.#crypto.randomBytes(1)[0]! / 256;
    this.#registerAt = after(this.#now, this.#registerBackoffMs * (0.75 + random / 2));
    this.#registerBackoffMs = Math.min(2 * this.#registerBackoffMs, MAX_BACKOFF_MS);
    this.#failQueries(error);
    this.#enter("registering", error);
  }

  #heartbeatRefused(error: string): void {
    this.#heartbeatFailures++;
    this.#heartbeatAt = after(this.#now, HEARTBEAT_MS);
    if (this.#heartbeatFailures >= MAX_HEARTBEAT_FAILURES || error.includes("not found")) this.#registerAgain(error);
  }

  #commandRefused(command: RegistryCommand, error: string): void {
    if (error === `node ${this.#node}: node not found`) {
      this.#retryOrFail(command, error);
      this.#registerAgain(error);
    } else if (isDurable(command) && error.includes("rate limited")) {
      this.#retryOrFail(command, error);
      this.#queueResumesAt = after(this.#now, RATE_LIMIT_PAUSE_MS);
    } else if (command.kind === "request-handshake" && error.includes("already pending")) {
      this.#events.push({ kind: "command-done", command });
    } else {
      this.#events.push(failureEvent(command, error));
    }
  }

  /** Not faster than every five seconds, whatever the registry says. */
  #registerAgain(error: string): void {
    const earliest = this.#registeredAt === undefined ? this.#now : after(this.#registeredAt, MIN_REGISTER_GAP_MS);
    this.#registerAt = instant(Math.max(earliest, this.#now));
    this.#enter("registering", error);
  }

  #enqueue(command: RegistryCommand): void {
    if (!isDurable(command) && !this.#isConnected) {
      this.#events.push(failureEvent(command, NOT_CONNECTED));
      return;
    }
    const key = commandKey(command);
    this.#queue.delete(key); // the later one replaces the earlier, at the end of the line
    if (this.#queue.size >= MAX_QUEUE && !this.#evictQuery()) {
      this.#events.push(failureEvent(command, QUEUE_FULL));
      return;
    }
    this.#queue.set(key, command);
  }

  /** Queries give way to what must not be lost. */
  #evictQuery(): boolean {
    for (const [key, command] of this.#queue) {
      if (isDurable(command)) continue;
      this.#queue.delete(key);
      this.#events.push(failureEvent(command, QUEUE_FULL));
      return true;
    }
    return false;
  }

  #dequeue(): RegistryCommand | undefined {
    for (const [key, command] of this.#queue) {
      this.#queue.delete(key);
      return command;
    }
    return undefined;
  }

  /** A durable command whose reply did not come goes back into the line, unless a later one says the same or takes it back. */
  #retryOrFail(command: RegistryCommand, error: string): void {
    if (!isDurable(command)) this.#events.push(failureEvent(command, error));
    else if (!this.#isOvertaken(command)) this.#queue.set(commandKey(command), command);
  }

  #isOvertaken(command: RegistryCommand): boolean {
    if (this.#queue.has(commandKey(command))) return true;
    return [...this.#queue.values()].some(
      (later) => later.kind === "revoke-trust" && isConsentWith(command, later.node),
    );
  }

  #failQueries(error: string): void {
    for (const [key, command] of this.#queue) {
      if (isDurable(command)) continue;
      this.#queue.delete(key);
      this.#events.push(failureEvent(command, error));
    }
  }

  #enter(state: RegistryState, error?: string): void {
    if (this.#state === state && this.#stateError === error) return;
    if (this.#state !== state) this.#stateSince = this.#now;
    this.#state = state;
    this.#stateError = error;
    this.#events.push({ kind: "state", state, ...(error === undefined ? {} : { error }) });
  }
}

function sameListen(a: ListenAddresses, b: ListenAddresses): boolean {
  const isSameLan = a.lan.length === b.lan.length && a.lan.every((endpoint, i) => sameEndpoint(endpoint, b.lan[i]));
  if (a.relayOnly !== b.relayOnly) return false;
  return isSameLan && a.port === b.port && sameEndpoint(a.observed, b.observed);
}

function inFlightType(answered: InFlight): keyof typeof REPLY_TYPES {
  return answered.kind === "command" ? answered.command.kind : answered.kind;
}

/** Success replies have the request's type and `_ok`. */
const REPLY_TYPES = {
  register: "register",
  heartbeat: "heartbeat",
  poll: "poll_handshakes",
  lookup: "lookup",
  resolve: "resolve",
  "resolve-hostname": "resolve_hostname",
  "request-handshake": "request_handshake",
  "respond-handshake": "respond_handshake",
  "report-trust": "report_trust",
  "revoke-trust": "revoke_trust",
  "check-trust": "check_trust",
  rotate: "rotate_key",
  "settle-rotation": "lookup",
  "set-hostname": "set_hostname",
  "set-visibility": "set_visibility",
  "set-tags": "set_tags",
  deregister: "deregister",
  ...NETWORK_REQUEST_TYPES,
} as const;

const REPLY_TIMEOUT_MS = 10_000;
const HEARTBEAT_MS = 30_000;
const MAX_HEARTBEAT_FAILURES = 3;
const FIRST_BACKOFF_MS = 1000;
const MAX_BACKOFF_MS = 30_000;
const MIN_REGISTER_GAP_MS = 5000;
const RATE_LIMIT_PAUSE_MS = 2000;
const MAX_QUEUE = 4096;
/** Why a question failed that could not be asked. */
export const NOT_CONNECTED = "the registry is not connected";
const DEREGISTERED = "deregistered; the next start registers again";
const ROTATING = "a rotation is under way";
const QUEUE_FULL = "too many registry requests are waiting";
