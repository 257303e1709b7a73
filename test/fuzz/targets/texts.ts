/** Every word that a person, a peer or a registry writes: addresses, endpoints, services, terms of an ask, names. */
import { fromBase64, fromHex, toBase64, toHex } from "../../../src/base/bytes.ts";
import { proxyFor } from "../../../src/io/https-proxy.ts";
import { parseSocketList } from "../../../src/io/socket-diag.ts";
import {
  DEFAULT_OVERLAY_PREFIX,
  formatOverlayAddress,
  formatPilotAddress,
  formatSocketAddress,
  parseOverlayAddress,
  parseOverlayPrefix,
  parsePilotAddress,
  parseSocketAddress,
} from "../../../src/wire/address.ts";
import { formatAskText, parseAskText } from "../../../src/wire/ask-text.ts";
import { parseCompatChallenge, parseCompatReply } from "../../../src/wire/compat.ts";
import { encodeHandshake, parseHandshake } from "../../../src/wire/handshake.ts";
import { isHostname } from "../../../src/wire/registry.ts";
import { parseServices, serviceWords } from "../../../src/wire/services.ts";
import { formatIp, parseEndpoint, parseIp, splitHostPort } from "../../../src/wire/underlay-address.ts";
import { demand, demandSame, textOf } from "../input.ts";

export function fuzz(data: Uint8Array): void {
  const text = textOf(data);
  addresses(text);
  const services = parseServices(text);
  if (services !== undefined) {
    demandSame(parseServices(serviceWords(services).join(",")), services, "a list of services survives");
  }
  const ask = parseAskText(text);
  if (ask.terms !== undefined) demandSame(parseAskText(formatAskText(ask)), ask, "the terms of an ask survive");
  else demand(ask.purpose === text, "text without terms is all purpose");
  const handshake = parseHandshake(data);
  if (handshake !== undefined) {
    const again = parseHandshake(encodeHandshake(handshake));
    demand(again?.node === handshake.node && again.type === handshake.type, "a handshake survives");
  }
  parseCompatChallenge(text);
  parseCompatReply(text);
  parseSocketList(text);
  isHostname(text);
  proxyFor({ host: "peer.example", port: 443 }, { https_proxy: text, no_proxy: text });
  const hex = fromHex(text);
  if (hex !== undefined) demand(toHex(hex) === text.toLowerCase(), "hexadecimal survives", text);
  const base64 = fromBase64(text);
  if (base64 !== undefined) demandSame(fromBase64(toBase64(base64)), base64, "base64 survives");
}

function addresses(text: string): void {
  const pilot = parsePilotAddress(text);
  if (pilot.kind === "address")
    demandSame(parsePilotAddress(formatPilotAddress(pilot.address)), pilot, "an address survives");
  const socket = parseSocketAddress(text);
  if (socket.kind === "socket-address") {
    demandSame(parseSocketAddress(formatSocketAddress(socket)), socket, "a socket address survives");
  }
  parseOverlayPrefix(text);
  const overlay = parseOverlayAddress(DEFAULT_OVERLAY_PREFIX, text);
  if (overlay !== undefined) {
    const again = parseOverlayAddress(DEFAULT_OVERLAY_PREFIX, formatOverlayAddress(DEFAULT_OVERLAY_PREFIX, overlay));
    demandSame(again, overlay, "an overlay address survives");
  }
  const ip = parseIp(text);
  if (ip !== undefined) demandSame(parseIp(formatIp(ip)!), ip, "an IP address survives");
  const endpoint = parseEndpoint(text);
  if (endpoint !== undefined)
    demand(parseIp(endpoint.address) !== undefined, "an endpoint has an IP address", endpoint);
  splitHostPort(text);
}
