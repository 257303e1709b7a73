/**
 * Several daemons on one machine: where each keeps its files. The nameless one lives in folders called `pilot-tun`, the
 * instance NAME in folders called `pilot-tun-NAME`; the unit pilot-tun@NAME.service makes the same folders.
 */

export interface InstancePaths {
  readonly config: string;
  readonly policy: string;
  readonly stateDir: string;
  readonly control: string;
  /** Name of the interface. */
  readonly tun: string;
}

/** `name` as `isInstanceName` accepts it; undefined: the nameless instance. */
export function instancePaths(name: string | undefined): InstancePaths {
  const folder = name === undefined ? "pilot-tun" : `pilot-tun-${name}`;
  return {
    config: `/etc/${folder}/config.toml`,
    policy: `/etc/${folder}/policy`,
    stateDir: `/var/lib/${folder}`,
    control: `/run/${folder}/control.sock`,
    tun: name === undefined ? "pilot0" : `pilot-${name}`,
  };
}

/** Where a daemon with this state folder keeps its audit log, unless told otherwise. */
export function auditDirectoryOf(stateDir: string): string {
  return `${stateDir}/audit`;
}

/** Short enough that `pilot-NAME` is an interface name (15 bytes), and safe in a path and in a unit's name. */
export function isInstanceName(text: string): boolean {
  return /^[a-z][a-z0-9]{0,8}$/.test(text);
}
