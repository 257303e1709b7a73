import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { fromHex, toBase64, toHex, utf8 } from "../../src/base/bytes.ts";
import { instant, type WallClock } from "../../src/base/instant.ts";
import { MemoryStore } from "../../src/rendezvous/memory-store.ts";
import { RegistryServer } from "../../src/rendezvous/registry.ts";
import { Conversation } from "../../src/rendezvous/request-context.ts";
import { binaryRequest } from "../../src/rendezvous/request-frame.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";
import { framed, signedText } from "../../src/wire/registry.ts";
import {
  BINARY_PREAMBLE,
  encodeBinaryError,
  encodeBinaryHeartbeatReply,
  encodeBinaryLookupReply,
  encodeBinaryResolveReply,
  parseBinaryRequest,
} from "../../src/wire/registry-binary.ts";
import { askText, crypto } from "../helpers/registry-caller.ts";

const vectors = JSON.parse(readFileSync(new URL("registry.json", import.meta.url), "utf8"));
const SEED_A = Uint8Array.from({ length: 32 }, (_, i) => i);

interface Step {
  readonly step: string;
  readonly request: string;
  readonly response: string;
}

describe("signed texts", () => {
  const a = nodeId(1);
  const b = nodeId(2);
  const ours = [
    signedText.heartbeat(a),
    signedText.resolve(a, b),
    signedText.reportTrust(a, b),
    signedText.revokeTrust(a, b),
    signedText.setVisibility(a),
    signedText.setHostname(a),
    signedText.setTags(a),
    signedText.setTaskExec(a),
    signedText.deregister(a),
    signedText.punch(a, b),
    signedText.pollHandshakes(a),
    signedText.requestHandshake(a, b),
    signedText.respondHandshake(a, b),
    signedText.rotateKey(a),
  ];

  test.each(ours)("%s has the reference's signature", (text) => {
    const vector = vectors.signatures.find((entry: { text: string }) => entry.text === text);
    expect(toBase64(crypto.ed25519Sign(SEED_A, utf8(text)))).toBe(vector?.sig_b64_key_a);
  });
});

describe("binary protocol", () => {
  const binary = vectors.binary;
  const payload = (hex: string) => fromHex(hex)!.subarray(4);

  test("requests are read as the JSON requests of the same meaning", () => {
    expect(toHex(BINARY_PREAMBLE)).toBe(binary.preamble);
    expect(parseBinaryRequest(payload(binary.heartbeat_req))).toEqual({
      type: 1,
      message: { type: "heartbeat", node_id: 1, signature: vectors.signatures[0].sig_b64_key_a },
    });
    expect(parseBinaryRequest(payload(binary.lookup_req))).toEqual({
      type: 2,
      message: { type: "lookup", node_id: 2 },
    });
    expect(parseBinaryRequest(payload(binary.resolve_req))).toMatchObject({
      type: 3,
      message: { type: "resolve", node_id: 2, requester_id: 1, signature: vectors.signatures[1].sig_b64_key_a },
    });
    expect(parseBinaryRequest(payload(binary.json_passthrough))).toEqual({
      type: 0,
      text: '{"type":"lookup","node_id":1}',
    });
  });

  test("replies are written as the reference writes them", () => {
    expect(toHex(encodeBinaryError("node not found"))).toBe(binary.error);
    expect(toHex(encodeBinaryHeartbeatReply(0x69800e80, true))).toBe(binary.heartbeat_resp);
    const publicKey = payload(binary.lookup_resp).subarray(17, 49);
    expect(
      toHex(
        encodeBinaryLookupReply({
          node: 2,
          isPublic: true,
          taskExec: false,
          poloScore: -3,
          networks: [0, 7],
          publicKey,
          hostname: "agent-b",
          tags: ["x", "yz"],
          realAddr: "198.51.100.7:4000",
          externalId: "ext",
        }),
      ),
    ).toBe(binary.lookup_resp);
    expect(
      toHex(
        encodeBinaryResolveReply({
          node: 2,
          realAddr: "198.51.100.7:4000",
          lanAddrs: ["192.168.1.2:4000"],
          keyAgeDays: undefined,
          publicKey,
        }),
      ),
    ).toBe(binary.resolve_resp);
  });

  test("a binary conversation is served by the rules of the JSON one", () => {
    const { server, store, conversation, ask } = registryLab();
    ask(vectors.transcript2026_05[0].request);
    ask(vectors.transcript2026_05[1].request);
    store.addMember(networkId(7), nodeId(2));
    const serve = (hex: string) =>
      server.handleFrame(
        binaryRequest(payload(hex)),
        conversation,
        instant(1),
        1_770_000_000_000 as WallClock,
      ) as Uint8Array;
    expect(toHex(serve(binary.heartbeat_req))).toBe(`0000000a81${"0000000069800e80"}00`);
    expect(toHex(serve(binary.lookup_req)).slice(8, 40)).toBe(
      "820000000200000000000002000000072029acbae1".slice(0, 32),
    );
    expect(toHex(serve(binary.resolve_req))).toBe(toHex(encodeBinaryError("request failed")));
    expect(toHex(serve("00000001ee"))).toBe(toHex(encodeBinaryError("request failed")));
  });
});

describe.each(["transcript2026_05", "transcript2026_02"])("%s, replayed", (name) => {
  const steps: Step[] = vectors[name].map((entry: Step, index: number) => ({
    ...entry,
    step: entry.step ?? vectors.transcript2026_02[index].step,
  }));
  const { ask } = registryLab();
  const isOldest = name === "transcript2026_02";

  test.each(steps.map((step) => [step.step, step] as const))("%s", (_name, step) => {
    const reply = JSON.parse(ask(step.request));
    const recorded = JSON.parse(step.response);
    const expected = OUR_REPLY[step.step] ?? (isOldest ? (OLDEST_DIFFERS[step.step] ?? recorded) : recorded);
    expect(stable(reply, expected)).toEqual(stable(expected, expected));
  });
});

/** Where this registry answers otherwise on purpose, in every generation's transcript. */
const OUR_REPLY: Record<string, object> = {
  // Always verified; the reference accepts anything for two minutes after a good one.
  "heartbeat A bad signature": { type: "error", error: "request failed" },
  // Who holds a name is not told.
  "set_hostname B taken": { type: "error", error: 'hostname "agent-a" already in use' },
  // Nobody asked who a private node is called.
  "lookup B": {
    type: "lookup_ok",
    node_id: 2,
    address: "0:0000.0000.0002",
    networks: [0],
    public: false,
    polo_score: 0,
    public_key: "Kay64UG8yvCyLhqU000LxzYeUm0L/hLIl5S8kyKWbdc=",
  },
};

/** Where the oldest generation hid or had not yet what the newer ones say. */
const OLDEST_DIFFERS: Record<string, object> = {
  "lookup unknown": { type: "error", error: "node 99: node not found" },
  "request_handshake A->B again": { type: "error", error: "handshake request already pending from node 1" },
  "resolve_hostname agent-b before trust": { type: "error", error: 'hostname "agent-b" not found' },
  check_trust: { type: "check_trust_ok", trusted: true },
  "resolve unsigned": { type: "error", error: "signature required for authenticated node" },
  "heartbeat A after deregister": { type: "error", error: "node 1: node not found" },
};

/** Times depend on the run; fields that only newer generations have are not compared against an older transcript. */
function stable(value: unknown, expected: unknown): unknown {
  if (Array.isArray(value)) return value.map((item, i) => stable(item, (expected as unknown[])[i] ?? item));
  if (typeof value !== "object" || value === null) return value;
  const wanted = expected as Record<string, unknown>;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key in wanted)
      .map(([key, field]) => [key, TIMES.has(key) ? "a time" : stable(field, wanted[key])]),
  );
}

const TIMES = new Set(["time", "timestamp", "created"]);

function registryLab() {
  const store = new MemoryStore();
  const server = new RegistryServer({ store, crypto, startedAt: instant(0), startedAtWall: 0 as WallClock });
  const conversation = new Conversation("127.0.0.1");
  const ask = (request: string) => askText(server, request, conversation, instant(1), 1_795_223_875_000 as WallClock);
  return { store, server, conversation, ask };
}

test("a frame is its length and its payload", () => {
  expect(toHex(framed(utf8("{}")))).toBe("000000027b7d");
});
