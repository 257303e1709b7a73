/**
 * The `lookup` of sockets that are only ever given numeric addresses: with Node's own each datagram sent would wait for a
 * turn of the event loop.
 */
import { isIPv6 } from "node:net";

export function numericLookup(
  address: string,
  _options: unknown,
  callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void,
): void {
  callback(null, address, isIPv6(address) ? 6 : 4);
}
