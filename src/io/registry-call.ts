/**
 * Single requests to a registry outside a daemon's conversation: connect, ask one after the other, hang up. Rejects when
 * the connection fails, is cut, or an answer takes too long: then nobody knows whether the request took effect.
 */
import { connect as tcpConnect } from "node:net";
import { fromUtf8 } from "../base/bytes.ts";
import { FrameDecoder } from "../wire/frame-decoder.ts";
import { encodeRegistryFrame, MAX_FRAME_BYTES, parseRegistryMessage, type RegistryMessage } from "../wire/registry.ts";
import type { OpeningStream, RegistryAddress } from "./registry-connection.ts";
import { type RegistrySecurity, secureConnector } from "./registry-tls.ts";

export type AskRegistry = (request: RegistryMessage) => Promise<RegistryMessage>;

export async function callRegistry<T>(
  address: RegistryAddress,
  security: RegistrySecurity,
  talk: (ask: AskRegistry) => Promise<T>,
): Promise<T> {
  const open = secureConnector(security) ?? plainTcp;
  const { socket, opened } = open(address);
  const failed = Promise.withResolvers<never>();
  failed.promise.catch(() => {}); // nobody may be waiting when it ends
  let reason: Error | undefined;
  socket.on("error", (error) => {
    reason = error;
  });
  socket.on("close", () => failed.reject(reason ?? new Error("the registry closed the connection")));
  socket.setTimeout(PATIENCE_MS, () => socket.destroy(new Error("the registry did not answer in time")));
  try {
    await Promise.race([new Promise<void>((resolve) => socket.once(opened, () => resolve())), failed.promise]);
    const decoder = new FrameDecoder(MAX_FRAME_BYTES);
    return await talk((request) => {
      const reply = new Promise<RegistryMessage>((resolve) => {
        const take = (chunk: Uint8Array): void => {
          decoder.push(chunk);
          const frame = decoder.next();
          if (frame === undefined) return;
          socket.off("data", take);
          resolve(parseRegistryMessage(fromUtf8(frame) ?? "") ?? {});
        };
        socket.on("data", take);
      });
      socket.write(encodeRegistryFrame(JSON.stringify(request)));
      return Promise.race([reply, failed.promise]);
    });
  } finally {
    socket.destroy();
  }
}

function plainTcp(address: RegistryAddress): OpeningStream {
  return { socket: tcpConnect({ host: address.host, port: address.port }), opened: "connect" };
}

const PATIENCE_MS = 10_000;
