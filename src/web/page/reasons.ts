/** What a refusal's reason means, in a few words. Reasons of a newer daemon stand for themselves. */
const WORDS: Readonly<Record<string, string>> = {
  policy: "no rule of the policy lets it pass",
  "not-trusted": "this node and the peer do not both consent",
  revoked: "consent was taken back",
  lease: "the consent is for other ports",
  "lease-ended": "the consent's time or bytes are used up",
  "not-member": "not in that network",
  "spoofed-source": "sent from an address that is not the sender's",
  "wrong-destination": "sent to an address that is not this node's",
  "flow-limit": "the peer holds too many flows",
  "over-limit": "faster than its rule grants",
  "over-budget": "the bytes that its rule grants are used up",
  "over-flows": "as many flows began as its rule grants",
  "wrong-path": "its rule names another path",
};

export function reasonWords(reason: string): string {
  return Object.hasOwn(WORDS, reason) ? WORDS[reason]! : "";
}
