import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { WallClock } from "../../src/base/instant.ts";
import type { LeaseTime } from "../../src/trust/lease.ts";
import { TrustBook } from "../../src/trust/trust-book.ts";
import * as trust from "../../src/trust/trust-record.ts";
import { networkId, nodeId } from "../../src/wire/ids.ts";

const at = (ms: number) => (1_700_000_000_000 + ms) as WallClock;
const fresh = () => trust.emptyRecord(nodeId(7), at(0));
const request = (ms: number) => ({ reason: "please", at: at(ms) });

function readBack(record: trust.TrustRecord): trust.TrustRecord {
  const book = new TrustBook();
  book.put(record);
  return TrustBook.fromJson(JSON.parse(JSON.stringify(book.toJson())))!.get(record.node)!;
}

describe("trust record", () => {
  it("becomes mutual when the peer accepts our open ask", () => {
    const asked = trust.ask(fresh(), "hello", at(1));
    expect(asked.state).toBe("asked");
    expect(trust.heardAccept(asked, at(2), at(2)).state).toBe("mutual");
  });

  it("becomes mutual when the operator approves a waiting request", () => {
    const pending = trust.heardRequest(fresh(), request(1), at(1));
    expect(pending.state).toBe("pending");
    expect(trust.approve(pending, at(2))?.state).toBe("mutual");
  });

  it("becomes mutual when both asked", () => {
    const asked = trust.ask(fresh(), "", at(1));
    expect(trust.heardRequest(asked, request(2), at(2)).state).toBe("mutual");
  });

  it("does not take an acceptance that nobody asked for", () => {
    for (const record of [fresh(), trust.heardRequest(fresh(), request(1), at(1)), trust.revoke(fresh(), at(1))]) {
      expect(trust.heardAccept(record, at(2), at(2))).toBe(record);
    }
  });

  it("does not take an acceptance that is older than the ask", () => {
    const asked = trust.ask(fresh(), "", at(10 * 60_000));
    expect(trust.heardAccept(asked, at(0), at(10 * 60_000 + 1)).state).toBe("asked");
  });

  it("stays revoked through every replay of what the peer and the registry ever said", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    const revoked = trust.revoke(mutual, at(3));
    expect(revoked.epoch).toBe(1);
    const statements: ((record: trust.TrustRecord) => trust.TrustRecord)[] = [
      (record) => trust.heardAccept(record, at(2), at(4)),
      (record) => trust.heardAccept(record, undefined, at(4)),
      (record) => trust.heardRequest(record, request(1), at(4)),
      (record) => trust.heardRequest(record, request(5), at(6)),
      (record) => trust.heardReject(record, at(4)),
      (record) => trust.heardRevoke(record, at(4)),
      (record) => trust.heardNoConsent(record, at(4)),
      (record) => trust.revocationTold(record),
    ];
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: statements.length - 1 }), { maxLength: 30 }), (order) => {
        const end = order.reduce((record, index) => statements[index]!(record), revoked);
        expect(end.state).toBe("revoked");
        expect(end.epoch).toBe(1);
      }),
    );
  });

  describe("a letter with a request beside a tombstone", () => {
    const stamp = at(9_000);
    const letter = (record: trust.TrustRecord, stamped: WallClock, lease = 0) =>
      trust.heardRequest(record, { reason: "please", at: stamped }, at(9_100), lease as LeaseTime, stamped);
    const revokedAfterMs = (ms: number, wall = at(10_500)) =>
      trust.revoke(letter(fresh(), stamp), wall, ms as LeaseTime);

    it("says nothing when it is the one that was heard before the revocation, also once this side asks again", () => {
      const revoked = revokedAfterMs(1_500);
      expect(letter(revoked, stamp)).toBe(revoked);
      const read = readBack(revoked);
      expect(letter(read, stamp)).toBe(read);
      const asked = trust.ask(revoked, "", at(11_000));
      expect(letter(asked, stamp)).toBe(asked);
    });

    it("is for the operator when it is any other, whatever the clocks of this machine and the registry show", () => {
      for (const wall of [at(10_500), at(86_400_000), at(-86_400_000)]) {
        for (const stamped of [at(8_000), at(10_000), at(90_000_000)]) {
          const asked = letter(revokedAfterMs(1_500, wall), stamped);
          expect(asked.state).toBe("revoked");
          expect(trust.approve(asked, at(13_000))?.state).toBe("mutual");
        }
      }
    });

    it("is answered by the operator's approval alone: not by an ask of this side, nor by a network that both are in", () => {
      const asked = letter(revokedAfterMs(1_500), at(10_000));
      expect(trust.ask(asked, "", at(11_000)).state).toBe("asked");
      expect(trust.approveMember(asked, networkId(1), at(11_000))).toBe(asked);
    });

    it("may be a new one when the revocation was in the second of the old one's stamp", () => {
      expect(letter(revokedAfterMs(999), stamp).request).toBeDefined();
      expect(letter(revokedAfterMs(1_000), stamp).request).toBeUndefined();
    });
  });

  it("takes an approval for the answer to an ask that was made before the clock was set back", () => {
    const asked = trust.ask(fresh(), "", at(86_400_000));
    expect(trust.heardAccept(asked, at(1_000), at(2_000)).state).toBe("mutual");
  });

  it("needs a new consent of both after the peer revoked", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    const ended = trust.heardRevoke(mutual, at(3));
    expect(ended.state).toBe("revoked-by-peer");
    expect(trust.heardAccept(ended, at(4), at(4)).state).toBe("revoked-by-peer");
    expect(trust.heardRequest(ended, request(5), at(5)).state).toBe("pending");
  });

  it("keeps an ask open when a revocation that was heard before it comes again", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    const asked = trust.ask(trust.heardRevoke(mutual, at(3), 7), "again", at(4));
    expect(trust.heardRevoke(asked, at(5), 7)).toBe(asked);
    // Another one, or one whose number is not known, is news.
    expect(trust.heardRevoke(asked, at(5), 8).state).toBe("revoked-by-peer");
    expect(trust.heardRevoke(asked, at(5)).state).toBe("revoked-by-peer");
    // And with trust mutual nothing that narrows is passed over, unless the peer itself has spoken for it since.
    const again = trust.heardAccept(asked, at(6), at(6));
    expect(trust.heardRevoke(again, at(7), 7).state).toBe("revoked-by-peer");
    const confirmed = trust.confirm(again, 7);
    expect(trust.heardRevoke(confirmed, at(7), 7)).toBe(confirmed);
    expect(trust.heardRevoke(confirmed, at(7), 8).state).toBe("revoked-by-peer");
  });

  it("does not pass over a revocation of a peer that counts anew since its records are older", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    const again = trust.heardAccept(trust.ask(trust.heardRevoke(mutual, at(3), 1), "", at(4)), at(5), at(5));
    expect(trust.heardRevoke(trust.confirm(again, 0), at(6), 1).state).toBe("revoked-by-peer");
  });

  it("keeps a request of the peer when its revocation before that comes again", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    const pending = trust.heardRequest(trust.heardRevoke(mutual, at(3), 7), request(4), at(4));
    expect(trust.heardRevoke(pending, at(5), 7)).toBe(pending);
  });

  it("counts as confirmed from the peer's own word on, and only as long as it lasts", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    expect(trust.isConfirmed(mutual)).toBe(false);
    const confirmed = trust.confirm(mutual, 0);
    expect(trust.isConfirmed(confirmed)).toBe(true);
    const again = trust.heardAccept(trust.ask(trust.revoke(confirmed, at(3)), "", at(4)), at(5), at(5));
    expect(trust.isConfirmed(again)).toBe(false);
  });

  it("falls back to asked when the peer itself says that it never consented", () => {
    const mutual = trust.heardAccept(trust.ask(fresh(), "", at(1)), at(2), at(2));
    expect(trust.heardNoConsent(mutual, at(3)).state).toBe("asked");
  });
});

describe("trust book", () => {
  it("reads back what it wrote, tombstones included", () => {
    const book = new TrustBook();
    book.put({ ...trust.revoke(fresh(), at(5)), publicKey: new Uint8Array(32).fill(9), hostname: "b" });
    book.put(trust.heardRequest(trust.emptyRecord(nodeId(8), at(0)), request(3), at(3)));
    const read = TrustBook.fromJson(JSON.parse(JSON.stringify(book.toJson())));
    expect([...read!.records()]).toEqual([...book.records()]);
  });

  it("refuses a stored book with any record that is not whole", () => {
    const stored = JSON.parse(JSON.stringify(bookWithOne().toJson()));
    for (const field of ["node", "state", "epoch", "since", "ask_reason"]) {
      const damaged = structuredClone(stored);
      damaged.records[0][field] = { no: "such thing" };
      expect(TrustBook.fromJson(damaged)).toBeUndefined();
    }
    expect(TrustBook.fromJson({ version: 2, records: [] })).toBeUndefined();
  });

  it("raises its epoch when a state changes and not when only a name does", () => {
    const book = bookWithOne();
    const before = book.epoch;
    book.put({ ...book.get(nodeId(7))!, hostname: "seven" });
    expect(book.epoch).toBe(before);
    book.put(trust.revoke(book.get(nodeId(7))!, at(9)));
    expect(book.epoch).toBe(before + 1);
  });
});

function bookWithOne(): TrustBook {
  const book = new TrustBook();
  book.put(trust.ask(fresh(), "x", at(1)));
  return book;
}
