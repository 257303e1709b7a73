import fc from "fast-check";
import { expect, it } from "vitest";
import { PlaceSet } from "../../src/base/place-set.ts";

it("walks over the places that are taken, in order, as a sorted set does", () => {
  const step = fc.record({ add: fc.boolean(), place: fc.oneof(fc.nat(127), fc.constantFrom(0, 31, 32, 63, 127)) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), fc.nat(140), (steps, from) => {
      const places = new PlaceSet(128);
      const model = new Set<number>();
      for (const { add, place } of steps) {
        if (add) places.add(place);
        else places.delete(place);
        if (add) model.add(place);
        else model.delete(place);
      }
      const walked: number[] = [];
      for (let place = places.next(from); place >= 0; place = places.next(place + 1)) walked.push(place);
      expect(walked).toEqual([...model].filter((place) => place >= from).sort((a, b) => a - b));
    }),
  );
});

it("may lose the place that is walked over", () => {
  const places = new PlaceSet(64);
  for (const place of [3, 4, 40]) places.add(place);
  const walked: number[] = [];
  for (let place = places.next(0); place >= 0; place = places.next(place + 1)) {
    walked.push(place);
    places.delete(place);
  }
  expect([walked, places.next(0)]).toEqual([[3, 4, 40], -1]);
});
