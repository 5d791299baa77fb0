/**
 * What is kept of a Node: a few hundred of its ten or twenty thousand bytes. The API has no form that holds
 * podCIDRs and annotations without the rest (the list of the images that a node has is most of it), so whole
 * Nodes are read, and let go of one by one.
 */

/** flannel's, and so ours: the schema is one (DESIGN: Leases). */
export const ANNOTATION_PREFIX = 'flannel.alpha.coreos.com/';

export interface NodeObject {
  readonly name: string;
  readonly resourceVersion: string;
  /** As they are written; none while the controller has given none. */
  readonly podCidrs: readonly string[];
  /** Those of ANNOTATION_PREFIX, without it. */
  readonly annotations: Readonly<Record<string, string>>;
  readonly networkUnavailable: NodeCondition | undefined;
}

export interface NodeCondition {
  /** `True`, `False` or `Unknown`. */
  readonly status: string;
  readonly reason: string;
  readonly lastTransitionTime: string | undefined;
}

/** Reads a Node of the API; undefined for what is none. */
export function readNode(object: unknown): NodeObject | undefined {
  const { metadata, spec, status } = fields(object);
  const { name, resourceVersion, annotations } = fields(metadata);
  if (typeof name !== 'string' || typeof resourceVersion !== 'string') return undefined;
  return {
    name,
    resourceVersion,
    podCidrs: readPodCidrs(fields(spec)),
    annotations: readAnnotations(fields(annotations)),
    networkUnavailable: readCondition(fields(status).conditions),
  };
}

/** `podCIDR` is the older field, and the first of `podCIDRs` where both are there. */
function readPodCidrs({ podCIDRs, podCIDR }: Record<string, unknown>): string[] {
  const all = Array.isArray(podCIDRs) && podCIDRs.length > 0 ? podCIDRs : [podCIDR];
  return all.filter((cidr): cidr is string => typeof cidr === 'string' && cidr !== '');
}

function readAnnotations(all: Record<string, unknown>): Record<string, string> {
  const ours: Record<string, string> = {};
  for (const name in all) {
    if (!name.startsWith(ANNOTATION_PREFIX)) continue;
    const value = all[name];
    if (typeof value === 'string') ours[name.slice(ANNOTATION_PREFIX.length)] = value;
  }
  return ours;
}

function readCondition(conditions: unknown): NodeCondition | undefined {
  if (!Array.isArray(conditions)) return undefined;
  for (const condition of conditions) {
    const { type, status, reason, lastTransitionTime } = fields(condition);
    if (type !== 'NetworkUnavailable' || typeof status !== 'string') continue;
    return {
      status,
      reason: typeof reason === 'string' ? reason : '',
      lastTransitionTime: typeof lastTransitionTime === 'string' ? lastTransitionTime : undefined,
    };
  }
  return undefined;
}

/** The members of an object; none of what is no object. */
export const fields = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
