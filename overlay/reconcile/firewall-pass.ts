/**
 * The packet filter's share of a pass: everything when something may differ, else only the elements of the
 * peers and pods that changed.
 */
import { type Address, FAMILIES, type Family, familyOf, type PerFamily } from '../../store/address.ts';
import {
  ENCAPSULATED_MARK,
  type FirewallFacts,
  firewallElements,
  firewallTables,
  peerElement,
} from '../desired/firewall.ts';
import type { FirewallElement } from '../desired/firewall-table.ts';
import { routesDirectly } from '../desired/on-link.ts';
import type { WantedOverlay } from '../desired/overlay.ts';
import type { PeerTable } from '../desired/peer-table.ts';
import { podElements } from '../desired/pod-filter.ts';
import type { PodPort } from '../desired/pods.ts';
import type { Firewall } from '../kernel/firewall.ts';

/** What the operator can switch off. */
export interface FirewallSwitches {
  readonly masquerade: boolean;
  readonly peerFilter: boolean;
  readonly podFilter: boolean;
}

export class FirewallPass {
  readonly #firewall: Firewall | undefined;
  #switches: FirewallSwitches;
  readonly #touchedPeers = new Set<Address>();
  #ports: readonly PodPort[] = [];
  /** The pods' elements as they were last applied, by their text. */
  #applied = new Map<string, FirewallElement>();
  #podsTouched = false;
  #mustLook = true;

  /** @param firewall undefined where nftables is missing and everything is switched off */
  constructor(firewall: Firewall | undefined, switches: FirewallSwitches) {
    this.#firewall = firewall;
    this.#switches = switches;
  }

  /** Takes effect with the next pass. */
  setSwitches(switches: FirewallSwitches): void {
    this.#switches = switches;
    this.#mustLook = true;
  }

  /** A peer with this public address came or went. */
  peerTouched(address: Address): void {
    this.#touchedPeers.add(address);
  }

  setPods(ports: readonly PodPort[]): void {
    this.#ports = ports;
    this.#podsTouched = true;
  }

  /**
   * @param look compare everything with the kernel, not only what changed here
   * @returns what somebody else had changed and is right again
   * @throws NftablesError, NetlinkError, FirewallUnsettledError
   */
  settle(wanted: WantedOverlay, peers: PeerTable, look: boolean): readonly string[] {
    if (this.#firewall === undefined) return [];
    if (look) this.#mustLook = true;
    if (!this.#mustLook) {
      this.#adjust(this.#firewall, peers);
      return [];
    }
    const remotes = FAMILIES.flatMap((family) => [...peers.wanted(family).remotes.keys()]);
    const report = this.#firewall.apply({
      tables: firewallTables(this.#facts(wanted)),
      elements: firewallElements(remotes, this.#ports),
    });
    this.#applied = elementsOf(this.#ports);
    this.#touchedPeers.clear();
    this.#podsTouched = false;
    this.#mustLook = false;
    return report.repaired;
  }

  #adjust(firewall: Firewall, peers: PeerTable): void {
    if (this.#touchedPeers.size === 0 && !this.#podsTouched) return;
    // Whatever goes wrong from here on: the next pass looks at everything.
    this.#mustLook = true;
    const add: FirewallElement[] = [];
    const remove: FirewallElement[] = [];
    for (const address of this.#touchedPeers) {
      const known = FAMILIES.some((family) => peers.wanted(family).remotes.has(address));
      (known ? add : remove).push(peerElement(address));
    }
    const pods = this.#podsTouched ? elementsOf(this.#ports) : this.#applied;
    for (const [text, element] of pods) if (!this.#applied.has(text)) add.push(element);
    for (const [text, element] of this.#applied) if (!pods.has(text)) remove.push(element);
    firewall.adjust({ add, remove });
    this.#applied = pods;
    this.#touchedPeers.clear();
    this.#podsTouched = false;
    this.#mustLook = false;
  }

  #facts(wanted: WantedOverlay): FirewallFacts {
    const { network, former, bridge } = wanted;
    const perFamily = <T>(of: (family: Family) => T | undefined): PerFamily<T> =>
      Object.fromEntries(wanted.families.map((family) => [family, of(family)]));
    const gateway = (family: Family): Address | undefined =>
      bridge.addresses.find(({ address }) => familyOf(address) === family)?.address;
    return {
      clusterNetworks: perFamily((family) => network.networks[family]?.network),
      formerNetworks: perFamily((family) => former.networks[family]),
      gateways: perFamily(gateway),
      devices: perFamily((family) => wanted.vxlan[family]?.name),
      direct: routesDirectly(network.backend)
        ? {
            device: wanted.underlay.link.name,
            ownSubnets: [wanted.lease, ...former.leases].flatMap(({ subnets }) =>
              wanted.families.flatMap((family) => subnets[family] ?? []),
            ),
          }
        : undefined,
      bridge: bridge.name,
      vni: network.backend.vni,
      port: network.backend.port,
      markBit: ENCAPSULATED_MARK,
      ...this.#switches,
    };
  }
}

const elementsOf = (ports: readonly PodPort[]): Map<string, FirewallElement> =>
  new Map(
    ports.flatMap((port) =>
      [...podElements(port)].map((element) => [`${element.set} ${element.element}`, element] as const),
    ),
  );
