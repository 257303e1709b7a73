/** Users and groups for policies in tests. */
import type { Accounts } from "../../src/policy/parse-selector.ts";

const USERS: ReadonlyMap<string, number> = new Map([
  ["root", 0],
  ["ann", 1000],
  ["ben", 1001],
]);
const GROUPS: ReadonlyMap<string, number> = new Map([
  ["ops", 200],
  ["web", 201],
]);

export const ACCOUNTS: Accounts = {
  userId: (name) => USERS.get(name),
  groupId: (name) => GROUPS.get(name),
  userNames: [...USERS.keys()],
  groupNames: [...GROUPS.keys()],
  obstacleTo: () => undefined,
};
