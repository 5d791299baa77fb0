/** The Kubernetes store against the lab's API server: the conformance suite. */
import { describeLeaseStore } from './conformance.ts';
import { KubernetesLab } from './kubernetes-lab.ts';

describe('store/kubernetes', () => {
  describeLeaseStore('kubernetes', () => KubernetesLab.create());
});
