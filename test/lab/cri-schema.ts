/**
 * As much of Kubernetes' Container Runtime Interface (the service `runtime.v1.RuntimeService`) as the tests call: names
 * and numbers of fields. What is left out here is left out on the wire, as the kubelet leaves out what a pod does not say.
 */

type Fields = Readonly<
  Record<string, readonly [id: number, type: string] | readonly [id: number, type: string, 'repeated']>
>;

interface Field {
  readonly id: number;
  readonly type: string;
  readonly rule?: string;
}

function message(fields: Fields = {}): { fields: Record<string, Field> } {
  const all = Object.entries(fields).map(([name, [id, type, rule]]): [string, Field] => [
    name,
    rule === undefined ? { id, type } : { id, type, rule },
  ]);
  return { fields: Object.fromEntries(all) };
}

/** `runtime.v1`, as protobufjs takes it. */
export const CRI = {
  nested: {
    runtime: {
      nested: {
        v1: {
          nested: {
            RuntimeService: {
              methods: Object.fromEntries(
                [
                  ...['RunPodSandbox', 'StopPodSandbox', 'RemovePodSandbox', 'PodSandboxStatus'],
                  ...['CreateContainer', 'StartContainer', 'StopContainer', 'ContainerStatus'],
                  ...['ExecSync', 'Status'],
                ].map((name) => [name, { requestType: `${name}Request`, responseType: `${name}Response` }]),
              ),
            },
            PodSandboxMetadata: message({
              name: [1, 'string'],
              uid: [2, 'string'],
              namespace: [3, 'string'],
            }),
            PortMapping: message({
              protocol: [1, 'int32'],
              container_port: [2, 'int32'],
              host_port: [3, 'int32'],
            }),
            NamespaceOption: message({ network: [1, 'int32'], pid: [2, 'int32'], ipc: [3, 'int32'] }),
            LinuxSandboxSecurityContext: message({ namespace_options: [1, 'NamespaceOption'] }),
            LinuxPodSandboxConfig: message({
              cgroup_parent: [1, 'string'],
              security_context: [2, 'LinuxSandboxSecurityContext'],
            }),
            PodSandboxConfig: message({
              metadata: [1, 'PodSandboxMetadata'],
              hostname: [2, 'string'],
              log_directory: [3, 'string'],
              port_mappings: [5, 'PortMapping', 'repeated'],
              linux: [8, 'LinuxPodSandboxConfig'],
            }),
            RunPodSandboxRequest: message({ config: [1, 'PodSandboxConfig'] }),
            RunPodSandboxResponse: message({ pod_sandbox_id: [1, 'string'] }),
            StopPodSandboxRequest: message({ pod_sandbox_id: [1, 'string'] }),
            StopPodSandboxResponse: message(),
            RemovePodSandboxRequest: message({ pod_sandbox_id: [1, 'string'] }),
            RemovePodSandboxResponse: message(),
            PodSandboxStatusRequest: message({ pod_sandbox_id: [1, 'string'] }),
            PodIP: message({ ip: [1, 'string'] }),
            PodSandboxNetworkStatus: message({ ip: [1, 'string'], additional_ips: [2, 'PodIP', 'repeated'] }),
            PodSandboxStatus: message({ id: [1, 'string'], network: [5, 'PodSandboxNetworkStatus'] }),
            PodSandboxStatusResponse: message({ status: [1, 'PodSandboxStatus'] }),
            ContainerMetadata: message({ name: [1, 'string'] }),
            ImageSpec: message({ image: [1, 'string'] }),
            KeyValue: message({ key: [1, 'string'], value: [2, 'string'] }),
            Mount: message({
              container_path: [1, 'string'],
              host_path: [2, 'string'],
              readonly: [3, 'bool'],
            }),
            Capability: message({
              add_capabilities: [1, 'string', 'repeated'],
              drop_capabilities: [2, 'string', 'repeated'],
            }),
            Int64Value: message({ value: [1, 'int64'] }),
            SecurityProfile: message({ profile_type: [1, 'int32'] }),
            LinuxContainerSecurityContext: message({
              capabilities: [1, 'Capability'],
              privileged: [2, 'bool'],
              namespace_options: [3, 'NamespaceOption'],
              run_as_user: [5, 'Int64Value'],
              run_as_group: [12, 'Int64Value'],
              readonly_rootfs: [7, 'bool'],
              no_new_privs: [11, 'bool'],
              masked_paths: [13, 'string', 'repeated'],
              readonly_paths: [14, 'string', 'repeated'],
              seccomp: [15, 'SecurityProfile'],
            }),
            LinuxContainerResources: message({ memory_limit_in_bytes: [4, 'int64'] }),
            LinuxContainerConfig: message({
              resources: [1, 'LinuxContainerResources'],
              security_context: [2, 'LinuxContainerSecurityContext'],
            }),
            ContainerConfig: message({
              metadata: [1, 'ContainerMetadata'],
              image: [2, 'ImageSpec'],
              command: [3, 'string', 'repeated'],
              args: [4, 'string', 'repeated'],
              envs: [6, 'KeyValue', 'repeated'],
              mounts: [7, 'Mount', 'repeated'],
              log_path: [11, 'string'],
              linux: [15, 'LinuxContainerConfig'],
            }),
            CreateContainerRequest: message({
              pod_sandbox_id: [1, 'string'],
              config: [2, 'ContainerConfig'],
              sandbox_config: [3, 'PodSandboxConfig'],
            }),
            CreateContainerResponse: message({ container_id: [1, 'string'] }),
            StartContainerRequest: message({ container_id: [1, 'string'] }),
            StartContainerResponse: message(),
            StopContainerRequest: message({ container_id: [1, 'string'], timeout: [2, 'int64'] }),
            StopContainerResponse: message(),
            ContainerStatusRequest: message({ container_id: [1, 'string'] }),
            ContainerStatus: message({ id: [1, 'string'], state: [3, 'int32'], exit_code: [7, 'int32'] }),
            ContainerStatusResponse: message({ status: [1, 'ContainerStatus'] }),
            ExecSyncRequest: message({
              container_id: [1, 'string'],
              cmd: [2, 'string', 'repeated'],
              timeout: [3, 'int64'],
            }),
            ExecSyncResponse: message({
              stdout: [1, 'bytes'],
              stderr: [2, 'bytes'],
              exit_code: [3, 'int32'],
            }),
            StatusRequest: message(),
            RuntimeCondition: message({ type: [1, 'string'], status: [2, 'bool'], message: [4, 'string'] }),
            RuntimeStatus: message({ conditions: [1, 'RuntimeCondition', 'repeated'] }),
            StatusResponse: message({ status: [1, 'RuntimeStatus'] }),
          },
        },
      },
    },
  },
};
