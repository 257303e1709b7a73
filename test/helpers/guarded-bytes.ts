/**
 * Bytes that throw when an index outside [from, to) is read. A plain Uint8Array answers `undefined` there, which
 * arithmetic turns into 0, and an arena answers with its neighbour: neither would make a test fail.
 */
export function guarded(bytes: Uint8Array, from = 0, to = bytes.length): Uint8Array {
  return new Proxy(bytes, {
    get(target, property) {
      if (typeof property === "string" && /^-?\d+$/.test(property)) {
        const index = Number(property);
        if (index < from || index >= to) throw new RangeError(`read at ${index}, outside [${from}, ${to})`);
        return target[index];
      }
      if (property === "subarray") {
        return (begin = 0, end = target.length) =>
          guarded(target.subarray(begin, end), Math.max(from - begin, 0), Math.min(to, end) - begin);
      }
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(target, property, value) {
      const index = Number(property);
      if (index < from || index >= to) throw new RangeError(`write at ${index}, outside [${from}, ${to})`);
      return Reflect.set(target, property, value);
    },
  });
}

/** A copy in which guarded bytes are plain ones, for comparing. */
export function unguarded<T>(value: T): T {
  if (value instanceof Uint8Array) return Uint8Array.from({ length: value.length }, (_, i) => value[i]!) as T;
  if (Array.isArray(value)) return value.map(unguarded) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, field]) => [key, unguarded(field)])) as T;
}
