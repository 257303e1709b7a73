/**
 * What the engine and the daemon's TCP sockets say to each other about connections between local programs and plain agents.
 * The kernel ends the TCP of every such connection at a socket of the daemon; the engine decides, the sockets only carry.
 * A connection is named by its `id`, which is the engine's. Bytes change owner with the message.
 */
export type SocketCommand =
  /**
   * A plain agent wants in: take a local port, ask the engine for the remote one, and connect to the address (16 bytes),
   * which the NAT leads to the local server.
   */
  | { readonly kind: "connect"; readonly id: number; readonly remoteAddress: Uint8Array }
  | { readonly kind: "write"; readonly id: number; readonly bytes: Uint8Array }
  /** Nothing more to write; reading goes on. */
  | { readonly kind: "end"; readonly id: number }
  /** Stop or go on with "data". */
  | { readonly kind: "pause"; readonly id: number }
  | { readonly kind: "resume"; readonly id: number }
  /** Break off with RST. */
  | { readonly kind: "reset"; readonly id: number };

export type SocketEvent =
  | { readonly kind: "connected"; readonly id: number }
  /** Of a "connect": nobody listens there, or no answer. */
  | { readonly kind: "refused"; readonly id: number }
  | { readonly kind: "data"; readonly id: number; readonly bytes: Uint8Array }
  /** So many bytes of "write" commands have left. */
  | { readonly kind: "written"; readonly id: number; readonly byteCount: number }
  /** The program ended its direction. */
  | { readonly kind: "ended"; readonly id: number }
  /** The socket is gone, in order or by a reset. */
  | { readonly kind: "closed"; readonly id: number; readonly inOrder: boolean };
