/**
 * What an API server would say of an object before it takes it (`kubectl apply --validate=strict`): kubernetes-models
 * knows what is required and of which form, from the API's own description; @kubernetes/client-node knows every field
 * there is, so that a misspelt one is found.
 */
import * as client from '@kubernetes/client-node';
import * as apps from 'kubernetes-models/apps/v1';
import * as rbac from 'kubernetes-models/rbac.authorization.k8s.io/v1';
import * as core from 'kubernetes-models/v1';

export interface KubernetesObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly [field: string]: unknown;
}

interface Attribute {
  readonly baseName: string;
  readonly type: string;
}

const GROUPS: Readonly<Record<string, object>> = {
  v1: core,
  'apps/v1': apps,
  'rbac.authorization.k8s.io/v1': rbac,
};

/** What is wrong with it; nothing where it is right. */
export function problemsOf(object: KubernetesObject): string[] {
  return [...missing(object), ...unknownFields(object, `V1${object.kind}`, object.kind)];
}

function missing(object: KubernetesObject): string[] {
  const group = GROUPS[object.apiVersion];
  if (group === undefined) return [`${object.apiVersion}: not a version that this test knows`];
  const model: unknown = Reflect.get(group, object.kind);
  if (typeof model !== 'function') return [`${object.kind}: not a kind of ${object.apiVersion}`];
  try {
    Reflect.construct(model, [object]).validate();
    return [];
  } catch (error) {
    return [`${object.kind}: ${error instanceof Error ? error.message : error}`];
  }
}

function unknownFields(value: unknown, type: string, path: string): string[] {
  const item = /^Array<(.*)>$/.exec(type)?.[1];
  if (item !== undefined) {
    if (!Array.isArray(value)) return [`${path}: must be a list`];
    return value.flatMap((each, at) => unknownFields(each, item, `${path}[${at}]`));
  }
  const attributes = attributesOf(type);
  if (attributes === undefined) return [];
  if (typeof value !== 'object' || value === null) return [`${path}: must be an object`];
  return Object.entries(value).flatMap(([name, field]) => {
    const attribute = attributes.find(({ baseName }) => baseName === name);
    if (attribute === undefined) return [`${path}.${name}: ${type} has no such field`];
    return unknownFields(field, attribute.type, `${path}.${name}`);
  });
}

/** Undefined for plain values and maps. */
function attributesOf(type: string): readonly Attribute[] | undefined {
  const model: unknown = Reflect.get(client, type);
  if (typeof model !== 'function' || !('getAttributeTypeMap' in model)) return undefined;
  return (model as unknown as { getAttributeTypeMap(): readonly Attribute[] }).getAttributeTypeMap();
}
