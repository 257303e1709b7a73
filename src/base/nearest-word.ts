/** What was probably meant: the nearest known word to a mistyped one. */

/** The known word that was probably meant; undefined when none is near. */
export function nearestWord(text: string, known: readonly string[]): string | undefined {
  return nearestWords(text, known)[0];
}

/** The known words that may have been meant, all equally near. */
export function nearestWords(text: string, known: readonly string[]): readonly string[] {
  if (text.length > MAX_WORD_LENGTH) return [];
  let best: string[] = [];
  let bestDistance = text.length <= 3 ? 1 : 2; // farther than this is another word
  for (const word of known) {
    const distance = editDistance(text.toLowerCase(), word);
    if (distance > bestDistance) continue;
    best = distance < bestDistance ? [word] : [...best, word];
    bestDistance = distance;
  }
  return best;
}

/** Insertions, deletions, replacements and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + (same ? 0 : 1));
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (swapped) cost = Math.min(cost, beforeLast[j - 2]! + 1);
      row.push(cost);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}

const MAX_WORD_LENGTH = 64;
