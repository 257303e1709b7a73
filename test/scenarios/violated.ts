/** An invariant that does not hold. */
export class Violated extends Error {
  readonly invariant: string;

  constructor(invariant: string, detail: string) {
    super(detail);
    this.invariant = invariant;
  }
}

export function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(3).padStart(8)} s`;
}
