/** Metrics as Prometheus reads them: text exposition format 0.0.4. */
import type { HistogramSnapshot } from "../base/histogram.ts";

export type Labels = Readonly<Record<string, string | number>>;
export type Sample = readonly [labels: Labels, value: number];

/** The writers of metrics whose names begin with `prefix`; each gives the lines of one metric. */
export function metricsOf(prefix: string) {
  const sample = (name: string, labels: Labels, value: number): string => {
    const text = Object.entries(labels).map(([label, of]) => `${label}="${escaped(String(of))}"`);
    return `${prefix}${name}${text.length === 0 ? "" : `{${text.join(",")}}`} ${value}`;
  };
  const heading = (name: string, help: string, type: string): string[] => [
    `# HELP ${prefix}${name} ${help}`,
    `# TYPE ${prefix}${name} ${type}`,
  ];
  const family = (type: string) => (name: string, help: string, samples: readonly Sample[]) => [
    ...heading(name, help, type),
    ...samples.map(([labels, value]) => sample(name, labels, value)),
  ];
  return {
    gauge: family("gauge"),
    counter: family("counter"),
    histogram(name: string, help: string, { buckets, sum, count }: HistogramSnapshot): string[] {
      const bounds = [...buckets.map(([bound, below]) => [String(bound), below] as const), ["+Inf", count] as const];
      return [
        ...heading(name, help, "histogram"),
        ...bounds.map(([bound, below]) => sample(`${name}_bucket`, { le: bound }, below)),
        sample(`${name}_sum`, {}, sum),
        sample(`${name}_count`, {}, count),
      ];
    },
  };
}

/** What a label's value must not hold as it is. */
function escaped(value: string): string {
  return value.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
