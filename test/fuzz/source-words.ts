/** Words that the source code compares with: texts in quotes, numbers of several bytes, and names of fields. */
import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export function sourceWords(): Uint8Array[] {
  const words = new Set<string>();
  const numbers = new Set<number>();
  const folder = fileURLToPath(new URL("../../src/", import.meta.url));
  for (const file of globSync("{wire,policy,names,trust,audit,control,registry,rendezvous,daemon,stream}/*.ts", {
    cwd: folder,
  }).sort()) {
    const text = readFileSync(`${folder}${file}`, "utf8").replace(/^import .*|\/\*[\s\S]*?\*\/|\/\/.*$/gm, "");
    for (const [, word] of text.matchAll(/"([!-~]{1,24})"/g)) words.add(word!);
    for (const [, number] of text.matchAll(/\b0x([0-9a-f]{2,8})\b/gi)) numbers.add(Number.parseInt(number!, 16));
  }
  const plain = [...words].map((word) => Buffer.from(word));
  const quoted = [...words].filter((word) => /^[a-z_]+$/.test(word)).map((word) => Buffer.from(`"${word}":`));
  return [...plain, ...quoted, ...[...numbers].map(bigEndian)].map((word) => new Uint8Array(word));
}

function bigEndian(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes.subarray(value > 0xffff ? 0 : value > 0xff ? 2 : 3);
}
