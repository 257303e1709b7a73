/**
 * The program by which the kernel puts a datagram into one of the relay's sockets (classic BPF, for
 * SO_ATTACH_REUSEPORT_CBPF; linux/filter.h, Documentation/networking/filter.rst): the first half of the sockets is for
 * known sources, the second for all others, and in each half one source always has the same. So a flood from made-up
 * sources fills buffers that nobody else's datagrams lie in, before a program has looked at any of it.
 *
 * Known sources are bits of a table, found by a hash with a secret: whoever does not know it can aim at nothing, and of the
 * made-up sources only the share that the table is full gets in among the known. The kernel's language has no tables, so
 * this one is a tree of comparisons; parts that are alike (most are empty) are one leaf.
 */

/** Sockets of each half; RELAY_GROUP_SOCKETS of the shim. */
export const GROUP_SOCKETS = 16;
export const TABLE_BITS = 16_384;
const TABLE_WORDS = TABLE_BITS / 32;

export function emptyTable(): Uint32Array {
  return new Uint32Array(TABLE_WORDS);
}

/** Enters a source, as `sourceWord` has it; how many bits it took: 1, or 0 when its bit was there. */
export function enter(table: Uint32Array, word: number, secret: number): number {
  const at = (mix(word, secret) << SOCKET_BITS) >>> 0;
  const mask = 1 << ((at >>> BIT_SHIFT) & 31);
  const isNew = (table[at >>> WORD_SHIFT]! & mask) === 0;
  table[at >>> WORD_SHIFT]! |= mask;
  return isNew ? 1 : 0;
}

/** Instructions of 8 bytes each, in this machine's order of bytes. */
export function sortingProgram(table: Uint32Array, secret: number): Uint8Array {
  const tree = treeOf(table, 0, TABLE_WORDS);
  const steps = [...readSource(), ...mixing(secret), ...seek(), ...landed(tree), ...choose()];
  const bytes = new Uint8Array(steps.length * STEP_BYTES);
  const [halves, words] = [new Uint16Array(bytes.buffer), new Uint32Array(bytes.buffer)];
  for (const [index, [code, jumpTrue, jumpFalse, k]] of steps.entries()) {
    halves[index * 4] = code;
    bytes[index * STEP_BYTES + 2] = jumpTrue;
    bytes[index * STEP_BYTES + 3] = jumpFalse;
    words[index * 2 + 1] = k;
  }
  return bytes;
}

/** The socket's number in either half, and the place in the table, are in its upper bits. */
function mix(word: number, secret: number): number {
  const first = Math.imul((word ^ secret ^ ((word ^ secret) >>> 16)) >>> 0, FIRST_FACTOR);
  return Math.imul(first ^ (first >>> 15), SECOND_FACTOR) >>> 0;
}

// ---- the parts of the program: A and X are the machine's two registers, M its memory --------------------------------

/** A: the source's word. At 0 is the payload; the packet is elsewhere. */
function readSource(): Step[] {
  return [
    step(LOAD_BYTE, PACKET),
    step(SHIFT_RIGHT, 4),
    jump(IF_EQUAL, 4, 5, 0),
    step(LOAD_WORD, PACKET + 8), // IPv6: the upper half of the source
    step(A_TO_X, 0),
    step(LOAD_WORD, PACKET + 12),
    step(XOR_X, 0),
    step(JUMP, 1),
    step(LOAD_WORD, PACKET + 12), // IPv4: the source
  ];
}

/** `mix`, into A and M[0]. */
function mixing(secret: number): Step[] {
  const fold = (bits: number): Step[] => [step(A_TO_X, 0), step(SHIFT_RIGHT, bits), step(XOR_X, 0)];
  return [
    step(XOR, secret),
    ...fold(16),
    step(MULTIPLY, FIRST_FACTOR),
    ...fold(15),
    step(MULTIPLY, SECOND_FACTOR),
    step(STORE, 0),
  ];
}

/** A: what the tree compares; X: which bit of the leaf counts. */
function seek(): Step[] {
  return [
    step(SHIFT_LEFT, SOCKET_BITS),
    step(STORE, 1),
    step(SHIFT_RIGHT, BIT_SHIFT),
    step(AND, 31),
    step(A_TO_X, 0),
    step(LOAD_MEMORY, 1),
  ];
}

/** Leaves, which load 32 bits of the table and go to the end, and above them comparisons with where the right half begins. */
function treeOf(table: Uint32Array, from: number, to: number): Step[] {
  const word = table[from]!;
  if (table.subarray(from + 1, to).every((other) => other === word)) return [step(LOAD, word), step(TO_END, 0)];
  const middle = (from + to) / 2;
  const [left, right] = [treeOf(table, from, middle), treeOf(table, middle, to)];
  const bound = (middle << WORD_SHIFT) >>> 0;
  if (left.length <= LONGEST_JUMP) return [jump(IF_AT_LEAST, bound, left.length, 0), ...left, ...right];
  return [jump(IF_AT_LEAST, bound, 0, 1), step(JUMP, left.length), ...left, ...right];
}

/** The leaves' ways to the end, now that it is known where that is. */
function landed(tree: readonly Step[]): Step[] {
  return tree.map((each, index) => (each[0] === TO_END ? step(JUMP, tree.length - index - 1) : each));
}

/** The number of the socket, in the order of binding. */
function choose(): Step[] {
  return [
    step(SHIFT_RIGHT_BY_X, 0),
    jump(IF_BITS, 1, 0, 3),
    step(LOAD_MEMORY, 0),
    step(SHIFT_RIGHT, 32 - SOCKET_BITS),
    step(RETURN_A, 0),
    step(LOAD_MEMORY, 0),
    step(SHIFT_RIGHT, 32 - SOCKET_BITS),
    step(OR, GROUP_SOCKETS),
    step(RETURN_A, 0),
  ];
}

/** Code, instructions to skip if true, if false, and a number. */
type Step = readonly [code: number, jumpTrue: number, jumpFalse: number, k: number];

function step(code: number, k: number): Step {
  return [code, 0, 0, k];
}

function jump(code: number, k: number, isTrue: number, isFalse: number): Step {
  return [code, isTrue, isFalse, k];
}

/** Codes of the kernel's instructions: class, size or operation, and where the operand is. */
const LOAD = 0x00;
const LOAD_WORD = 0x20;
const LOAD_BYTE = 0x30;
const LOAD_MEMORY = 0x60;
const STORE = 0x02;
const MULTIPLY = 0x24;
const OR = 0x44;
const AND = 0x54;
const SHIFT_LEFT = 0x64;
const SHIFT_RIGHT = 0x74;
const SHIFT_RIGHT_BY_X = 0x7c;
const XOR = 0xa4;
const XOR_X = 0xac;
const JUMP = 0x05;
const IF_EQUAL = 0x15;
const IF_AT_LEAST = 0x35;
const IF_BITS = 0x45;
const RETURN_A = 0x16;
const A_TO_X = 0x07;
/** Of ours: a JUMP whose distance is not known yet. */
const TO_END = -1;

const STEP_BYTES = 8;
const LONGEST_JUMP = 255;
/** SKF_NET_OFF: loads from here on count from the IP header. */
const PACKET = 0xfff0_0000;

const SOCKET_BITS = 4;
/** Of what is left of the hash without the socket's bits: the word of the table, then the bit in it. */
const WORD_SHIFT = 23;
const BIT_SHIFT = 18;
const FIRST_FACTOR = 0x7feb352d;
const SECOND_FACTOR = 0x9e3779b1;
