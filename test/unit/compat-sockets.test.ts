/** The beacon over WebSockets with real sockets on loopback: server, client, forwarder and proxy together. */
import { createSocket, type Socket as UdpSocket } from "node:dgram";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket, connect as tcpConnect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { concatBytes, toHex, utf8 } from "../../src/base/bytes.ts";
import type { Endpoint } from "../../src/base/endpoint.ts";
import { type Rendezvous, runRendezvous } from "../../src/daemon/rendezvous.ts";
import { CompatConnection, type CompatTarget, openCompat } from "../../src/io/compat-connection.ts";
import { CompatForwarder } from "../../src/io/compat-forwarder.ts";
import { type ProxyEnvironment, proxyFor } from "../../src/io/https-proxy.ts";
import { NodeCrypto } from "../../src/io/node-crypto.ts";
import { encodeDiscover, encodePunchRequest, encodeRelayPrefix } from "../../src/wire/beacon.ts";
import { nodeId } from "../../src/wire/ids.ts";
import { Caller, RegistryLab } from "../helpers/registry-caller.ts";
import { RegistrySocket } from "../helpers/registry-socket.ts";

const ANY: Endpoint = { address: "127.0.0.1", port: 0 };
const crypto = new NodeCrypto();
const cleanUps: (() => unknown)[] = [];
let stateDir: string;
let rendezvous: Rendezvous;
let target: CompatTarget;

beforeEach(async () => {
  stateDir = mkdtempSync(join(tmpdir(), "compat-"));
  const tls = { kind: "self-signed", stateDir, names: ["127.0.0.1"] } as const;
  rendezvous = await runRendezvous({ registry: ANY, beacon: ANY, compat: ANY, tls, stateDir });
  target = {
    host: "127.0.0.1",
    port: rendezvous.compat!.port,
    path: "/v1/compat",
    fingerprint: rendezvous.fingerprint,
  };
});

afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
  await rendezvous.close();
  rmSync(stateDir, { recursive: true, force: true });
});

/** Registered nodes get the numbers 1, 2, … */
async function register(...seeds: number[]): Promise<void> {
  const socket = await RegistrySocket.open(rendezvous.registry.port);
  for (const seed of seeds) {
    const key = new Caller(new RegistryLab(), seed).key;
    await socket.ask({ type: "register", listen_addr: "0.0.0.0:4000", public_key: key });
  }
  socket.close();
}

class Client {
  readonly received: string[] = [];
  closedBy: string | undefined;
  connection!: CompatConnection;

  static async open(node: number, seed: number, environment: ProxyEnvironment = {}, to = target): Promise<Client> {
    const client = new Client();
    const bytes = new Uint8Array(32).fill(seed);
    const identity = { node: nodeId(node), seed: bytes, publicKey: crypto.ed25519PublicKey(bytes) };
    const hooks = {
      handleDatagram: (datagram: Uint8Array) => void client.received.push(toHex(datagram)),
      handleClose: (reason: string) => {
        client.closedBy = reason;
      },
    };
    const signal = AbortSignal.timeout(5_000);
    client.connection = await CompatConnection.open(to, identity, crypto, environment, hooks, signal);
    cleanUps.push(() => client.connection.close());
    return client;
  }
}

class UdpNode {
  readonly received: string[] = [];
  readonly socket: UdpSocket;

  static async open(): Promise<UdpNode> {
    const node = new UdpNode();
    await new Promise<void>((resolve) => node.socket.bind(0, "127.0.0.1", resolve));
    return node;
  }

  constructor() {
    this.socket = createSocket("udp4");
    this.socket.on("message", (datagram) => this.received.push(toHex(datagram)));
    cleanUps.push(() => this.socket.close());
  }

  send(datagram: Uint8Array): void {
    this.socket.send(datagram, rendezvous.beacon.port, "127.0.0.1");
  }
}

async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !isSo(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  expect(isSo()).toBe(true);
}

const relay = (from: number, to: number, text: string): Uint8Array =>
  concatBytes(encodeRelayPrefix(nodeId(from), nodeId(to)), utf8(text));

describe("the compat endpoint", () => {
  test("relays between a node on a WebSocket and one on UDP, both ways", async () => {
    await register(1, 2);
    const client = await Client.open(1, 1);
    const udp = await UdpNode.open();
    udp.send(encodeDiscover(nodeId(2), false));
    await until(() => udp.received.length === 1);
    client.connection.send(relay(1, 2, "over tcp"));
    await until(() => udp.received.length === 2);
    expect(udp.received[1]).toBe(`0600000001${toHex(utf8("over tcp"))}`);
    udp.send(relay(2, 1, "over udp"));
    await until(() => client.received.length === 1);
    expect(client.received[0]).toMatch(new RegExp(`^0[69]00000002(00000001)?${toHex(utf8("over udp"))}$`));
  });

  test("relays between two nodes on WebSockets", async () => {
    await register(1, 2);
    const [first, second] = [await Client.open(1, 1), await Client.open(2, 2)];
    first.connection.send(relay(1, 2, "hello"));
    await until(() => second.received.length === 1);
    expect(second.received[0]).toContain(toHex(utf8("hello")));
  });

  test("answers a discovery with where the connection comes from", async () => {
    await register(1);
    const client = await Client.open(1, 1);
    client.connection.send(encodeDiscover(nodeId(1), true));
    await until(() => client.received.length === 1);
    expect(client.received[0]).toMatch(/^02047f000001[0-9a-f]{4}$/);
    expect(client.received[0]).not.toMatch(/0000$/);
  });

  test("drops what a node says in another's name, and counts it", async () => {
    await register(1, 2, 3);
    const [forger, victim] = [await Client.open(1, 1), await Client.open(2, 2)];
    forger.connection.send(relay(3, 2, "not me"));
    forger.connection.send(relay(1, 2, "me"));
    await until(() => victim.received.length === 1);
    expect(victim.received[0]).toContain(toHex(utf8("me")));
    expect(rendezvous.stats().compat).toMatchObject({ forged: 1, accepted: 2 });
  });

  test("punches nobody towards a connection", async () => {
    await register(1, 2);
    const client = await Client.open(1, 1);
    const udp = await UdpNode.open();
    udp.send(encodePunchRequest(nodeId(2), nodeId(1)));
    client.connection.send(encodePunchRequest(nodeId(1), nodeId(2)));
    udp.send(encodeDiscover(nodeId(2), false)); // what is answered shows that the others were handled
    await until(() => udp.received.length > 0);
    expect([...udp.received, ...client.received].some((hex) => hex.startsWith("04"))).toBe(false);
  });

  test("a node that has gone is reached on UDP again as soon as it is there", async () => {
    await register(1, 2);
    const client = await Client.open(1, 1);
    client.connection.close();
    await until(() => rendezvous.stats().compat?.connections === 0);
    const [udp, peer] = [await UdpNode.open(), await UdpNode.open()];
    udp.send(encodeDiscover(nodeId(1), false));
    await until(() => udp.received.length === 1);
    peer.send(relay(2, 1, "found"));
    await until(() => udp.received.length === 2);
  });

  test("refuses a wrong key, an unknown number, and silence, each with nothing kept", async () => {
    await register(1);
    await expect(Client.open(1, 9)).rejects.toThrow(/unknown-key/);
    await expect(Client.open(7, 1)).rejects.toThrow(/unknown-key/);
    const { webSocket } = await openCompat(target, {}, AbortSignal.timeout(5_000));
    const closed = new Promise<number>((resolve) => webSocket.once("close", resolve));
    webSocket.send("hello");
    expect(await closed).toBe(1008);
    await until(() => rendezvous.stats().compat?.connections === 0);
    expect(rendezvous.stats().compat).toMatchObject({ refused: 3, accepted: 0 });
  });

  test("has nothing at any other path, and wants TLS", async () => {
    const url = (path: string) => `wss://127.0.0.1:${target.port}${path}`;
    const refused = (address: string) =>
      new Promise<string>((resolve) => {
        const socket = new WebSocket(address, { rejectUnauthorized: false });
        socket.once("error", (error) => resolve(error.message));
        socket.once("open", () => resolve("open"));
      });
    expect(await refused(url("/"))).toContain("404");
    expect(await refused(url("/v1/compatible"))).toContain("404");
    expect(await refused(`ws://127.0.0.1:${target.port}/v1/compat`)).not.toBe("open");
  });

  test("is not believed with another certificate than the pinned one, nor unpinned with one of its own making", async () => {
    await register(1);
    await expect(Client.open(1, 1, {}, { ...target, fingerprint: "00".repeat(32) })).rejects.toThrow(/pinned/);
    await expect(Client.open(1, 1, {}, { ...target, fingerprint: undefined })).rejects.toThrow(/self-signed/);
  });

  test("keeps its self-made certificate across restarts", async () => {
    const before = rendezvous.fingerprint;
    await rendezvous.close();
    const tls = { kind: "self-signed", stateDir, names: ["127.0.0.1"] } as const;
    rendezvous = await runRendezvous({ registry: ANY, beacon: ANY, compat: ANY, tls, stateDir });
    expect(rendezvous.fingerprint).toBe(before);
  });

  test("tells the client when it goes away", async () => {
    await register(1);
    const client = await Client.open(1, 1);
    await rendezvous.close();
    await until(() => client.closedBy !== undefined);
    expect(client.closedBy).toContain("broke");
  });
});

describe("the forwarder", () => {
  test("passes datagrams of the tunnel socket alone, and answers from the endpoint it stands for", async () => {
    const [tunnel, stranger] = [await UdpNode.open(), await UdpNode.open()];
    const { port } = tunnel.socket.address();
    const forwarder = new CompatForwarder({ address: "0.0.0.0", port });
    cleanUps.push(() => forwarder.close());
    const seen: string[] = [];
    forwarder.onDatagram = (datagram) => void seen.push(toHex(datagram));
    const endpoint = await forwarder.listen();
    let from = 0;
    tunnel.socket.on("message", (_datagram, source) => {
      from = source.port;
    });
    stranger.socket.send(utf8("forged"), endpoint.port, endpoint.address);
    tunnel.socket.send(utf8("honest"), endpoint.port, endpoint.address);
    await until(() => seen.length === 1 && forwarder.dropped === 1);
    expect(seen).toEqual([toHex(utf8("honest"))]);
    forwarder.deliver(utf8("answer"));
    await until(() => tunnel.received.length === 1);
    expect(from).toBe(endpoint.port);
  });
});

describe("through a proxy", () => {
  test("CONNECT opens the way, with the name and password of its URL", async () => {
    await register(1, 2);
    const proxy = await ConnectProxy.open("user:pa ss");
    const client = await Client.open(1, 1, { HTTPS_PROXY: `http://user:pa%20ss@127.0.0.1:${proxy.port}` });
    expect(proxy.targets).toEqual([`127.0.0.1:${target.port}`]);
    const udp = await UdpNode.open();
    udp.send(encodeDiscover(nodeId(2), false));
    await until(() => udp.received.length === 1);
    client.connection.send(relay(1, 2, "through"));
    await until(() => udp.received.length === 2);
  });

  test("its refusal is told in words", async () => {
    await register(1);
    const proxy = await ConnectProxy.open("user:secret");
    const environment = { https_proxy: `127.0.0.1:${proxy.port}` };
    await expect(Client.open(1, 1, environment)).rejects.toThrow(/wants a user name and a password/);
    const closed = { HTTPS_PROXY: "http://127.0.0.1:1" };
    await expect(Client.open(1, 1, closed)).rejects.toThrow(/proxy 127.0.0.1:1 does not answer/);
    await expect(Client.open(1, 1, { HTTPS_PROXY: "socks5://x" })).rejects.toThrow(/HTTPS_PROXY/);
  });

  test("a proxy that never answers is given up when the time is over", async () => {
    const mute = createServer(() => {});
    await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
    const { port } = mute.address() as { port: number };
    cleanUps.push(() => mute.close());
    const attempt = openCompat(target, { HTTPS_PROXY: `127.0.0.1:${port}` }, AbortSignal.timeout(200));
    await expect(attempt).rejects.toThrow(/too long/);
  });

  test.each([
    ["", false],
    ["*", true],
    ["example.org", true],
    [".example.org", true],
    ["ample.org", false],
    ["other.net, example.org:443", true],
    ["example.org:80", false],
  ])("NO_PROXY %j exempts a.example.org: %j", (list, isExempt) => {
    const environment = { HTTPS_PROXY: "http://proxy:3128", NO_PROXY: list };
    const proxy = proxyFor({ host: "a.example.org", port: 443 }, environment);
    expect(proxy === undefined).toBe(isExempt);
  });

  test.each([
    ["192.0.2.0/24", "192.0.2.77", true],
    ["192.0.2.0/28", "192.0.2.77", false],
    ["192.0.2.77", "192.0.2.77", true],
    ["192.0.2.77:443", "192.0.2.77", true],
    ["192.0.2.77:80", "192.0.2.77", false],
    ["2001:db8::/32", "2001:db8::1", true],
    ["[2001:db8::1]", "2001:db8::1", true],
    ["2001:db9::/32", "2001:db8::1", false],
    ["example.org", "192.0.2.77", false],
  ])("NO_PROXY %j and the address %s: %j", (list, host, isExempt) => {
    const proxy = proxyFor({ host, port: 443 }, { https_proxy: "http://proxy:3128", no_proxy: list });
    expect(proxy === undefined).toBe(isExempt);
  });
});

/** A proxy that knows CONNECT, for one user. */
class ConnectProxy {
  readonly targets: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  static async open(credentials: string): Promise<ConnectProxy> {
    const proxy = new ConnectProxy(`Basic ${Buffer.from(credentials).toString("base64")}`);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    cleanUps.push(() => proxy.#close());
    return proxy;
  }

  private constructor(authorization: string) {
    this.#server = createServer((client) => {
      this.#track(client);
      client.once("data", (head) => {
        const text = head.toString();
        const [, address = ""] = text.split(" ");
        if (!text.includes(`Proxy-Authorization: ${authorization}\r\n`)) {
          client.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
          return;
        }
        this.targets.push(address);
        const upstream = tcpConnect(Number(address.split(":")[1]), "127.0.0.1", () => {
          client.write("HTTP/1.1 200 OK\r\nVia: test\r\n\r\n");
          client.pipe(upstream).pipe(client);
        });
        this.#track(upstream);
      });
    });
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
  }

  #close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}
