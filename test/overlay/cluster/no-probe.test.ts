/** The probe is optional: without the package raw-socket, or switched off. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import { describeCluster, EMBEDDED_DUAL, pingPod } from '../../lab/cluster.ts';

/** As where npm could not compile it: it does not resolve. */
const WITHOUT_RAW_SOCKET = `
const Module = require('node:module');
const resolve = Module._resolveFilename;
Module._resolveFilename = function (request, ...rest) {
  if (request === 'raw-socket') {
    throw Object.assign(new Error("Cannot find module 'raw-socket'"), { code: 'MODULE_NOT_FOUND' });
  }
  return resolve.call(this, request, ...rest);
};
`;

describeCluster(
  'nodes that cannot probe the underlay',
  [EMBEDDED_DUAL],
  { nodes: 2, idle: true, daemonArguments: ['--probe-interval', '1s'] },
  (cluster) => {
    const restart = async (extra: readonly string[], env?: NodeJS.ProcessEnv): Promise<void> => {
      for (const node of cluster.lab.nodes) {
        await node.daemon?.terminate();
        await node.startDaemon(extra, env);
      }
      await cluster.settled();
    };
    const metrics = async (): Promise<string> =>
      (await cluster.node(1).exec(['busybox', 'wget', '-q', '-O', '-', 'http://127.0.0.1:9472/metrics']))
        .stdout;
    const logged = async (): Promise<string> => (await cluster.node(1).daemon?.log()) ?? '';

    it('without raw-socket everything else works; log and status say what is lacking and how to get it', async () => {
      const preload = join(cluster.lab.dir, 'without-raw-socket.cjs');
      await writeFile(preload, WITHOUT_RAW_SOCKET);
      await restart([], { ...process.env, NODE_OPTIONS: `--require=${preload}` });
      for (const node of cluster.lab.nodes) await node.attachPod();
      expect((await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).lost).to.equal(0);
      const status = await cluster.node(1).status();
      expect(status.ready).to.equal(true);
      expect(status.probe?.running).to.equal(false);
      expect(status.probe?.reason)
        .to.include('raw-socket is not installed or was not compiled')
        .and.include('npm rebuild raw-socket');
      expect(status.peers.map(({ path, pathIPv6 }) => path ?? pathIPv6)).to.deep.equal([undefined]);
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.include(
        'not probed: the npm package raw-socket',
      );
      // Once, though two families lack it.
      const said = (await logged()).split('\n').filter((line) => line.includes('the underlay is not probed'));
      expect(said).to.have.length(1);
      expect(said[0])
        .to.match(/ warn /)
        .and.include('raw-socket');
      expect(await metrics()).to.include('vtepd_probe_packets_total{result="sent"} 0');
    });

    it('switched off by one setting it sends nothing and says nothing', async () => {
      const before = (await logged()).length;
      await restart(['--probe=false']);
      expect((await pingPod(cluster.pod(1), cluster.pod(2), { count: 3 })).lost).to.equal(0);
      const status = await cluster.node(1).status();
      expect(status.probe).to.equal(null);
      expect(status.peers.map(({ path, pathIPv6 }) => path ?? pathIPv6)).to.deep.equal([undefined]);
      expect((await cluster.node(1).vtepd(['status'])).stdout).to.not.include('probed');
      expect((await logged()).slice(before)).to.not.include('prob');
    });
  },
);
