/** STATUS: whether an ADD would succeed now. */
import { FAMILIES } from '../../store/address.ts';
import { CNI_CODES, CniError } from '../cni-error.ts';
import type { VerbContext } from './context.ts';

/** @throws CniError 50 with the reason */
export function status({ network, registry }: VerbContext): void {
  const readiness = network.readiness();
  const facts = network.facts();
  if (!readiness.ready || facts === undefined) {
    const reason = readiness.ready ? 'it holds no lease' : readiness.reason;
    throw new CniError(CNI_CODES.notAvailable, `vtepd is not ready: ${reason}`);
  }
  const use = registry.addressUse(facts.subnets, facts.gateways);
  for (const family of FAMILIES) {
    if (use[family]?.free === 0) {
      throw new CniError(
        CNI_CODES.notAvailable,
        `no ${family} address is free: ${use[family]?.used} pods have one each`,
      );
    }
  }
}
