import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { expect } from 'chai';
import { HttpListenError, type HttpServer, type HttpSources, serveHttp } from '../../../overlay/ops/http.ts';
import { recordingLog, silentLog } from '../../../overlay/ops/log.ts';
import { createMetrics } from '../../../overlay/ops/metrics.ts';
import { statusReport } from './status-report.ts';

const LOOPBACK = { host: '127.0.0.1', port: 0 };

describe('ops: http', () => {
  let ready = true;
  let healthy = true;
  const metrics = createMetrics();
  const sources: HttpSources = {
    health: () => (healthy ? { healthy } : { healthy: false, reason: 'the loop is stuck' }),
    readiness: () => (ready ? { ready } : { ready: false, reason: 'no network configuration' }),
    status: () => statusReport(),
    metrics: () => metrics.text(),
    metricsType: metrics.contentType,
  };
  const controller = new AbortController();
  let server: HttpServer;

  before(async () => {
    server = await serveHttp(LOOPBACK, sources, silentLog, controller.signal);
  });
  after(() => server.close());
  beforeEach(() => {
    ready = true;
    healthy = true;
  });

  async function ask(path: string, method = 'GET', from = server) {
    const asked = request({ ...from.address, path, method, agent: false });
    asked.end();
    const [response] = await once(asked, 'response');
    let body = '';
    for await (const part of response.setEncoding('utf8')) body += part;
    return {
      code: response.statusCode,
      type: response.headers['content-type'],
      headers: response.headers,
      body,
    };
  }

  it('says whether it lives and whether it is ready, and why not', async () => {
    expect(await ask('/healthz')).to.include({ code: 200, body: 'ok\n' });
    expect(await ask('/readyz?verbose')).to.include({ code: 200, body: 'ok\n' });
    ready = false;
    expect(await ask('/readyz')).to.include({ code: 503, body: 'no network configuration\n' });
    expect(await ask('/healthz')).to.include({ code: 200 });
    healthy = false;
    expect(await ask('/healthz')).to.include({ code: 503, body: 'the loop is stuck\n' });
  });

  it('serves the status as JSON and the metrics as Prometheus reads them', async () => {
    const status = await ask('/api/v1/status');
    expect([status.code, status.type]).to.deep.equal([200, 'application/json; charset=utf-8']);
    expect(JSON.parse(status.body)).to.deep.equal(JSON.parse(JSON.stringify(statusReport())));
    const scraped = await ask('/metrics');
    expect([scraped.code, scraped.type]).to.deep.equal([200, metrics.contentType]);
    expect(scraped.body).to.include('vtepd_peers_wanted 0');
  });

  it('answers HEAD without a body, and nothing but questions', async () => {
    const head = await ask('/api/v1/status', 'HEAD');
    expect([head.code, head.body]).to.deep.equal([200, '']);
    expect(Number(head.headers['content-length'])).to.be.greaterThan(100);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE']) {
      const answer = await ask('/healthz', method);
      expect([answer.code, answer.headers.allow], method).to.deep.equal([405, 'GET, HEAD']);
    }
    for (const path of ['/', '/healthz/', '/api/v1', '/../etc/passwd', '//metrics', '/%2e']) {
      expect((await ask(path)).code, path).to.equal(404);
    }
  });

  it('survives what is no HTTP, and headers without end', async () => {
    for (const bytes of ['\0\0\0\r\n\r\n', `GET / HTTP/1.1\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`]) {
      const socket = connect(server.address.port, server.address.host);
      socket.on('error', () => {});
      socket.write(bytes);
      socket.resume();
      await once(socket, 'close');
    }
    expect((await ask('/healthz')).code).to.equal(200);
  });

  it('answers 500 and goes on when a source fails', async () => {
    const log = recordingLog();
    const failing = { ...sources, metrics: () => Promise.reject(new Error('broken')) };
    const other = await serveHttp(LOOPBACK, failing, log, controller.signal);
    try {
      expect(await ask('/metrics', 'GET', other)).to.include({ code: 500, body: 'broken\n' });
      expect((await ask('/healthz', 'GET', other)).code).to.equal(200);
      expect(log.entries.map((entry) => entry.message)).to.deep.equal(['an HTTP request failed']);
    } finally {
      await other.close();
    }
  });

  it('says what to do when the address is taken', async () => {
    try {
      await serveHttp(server.address, sources, silentLog, controller.signal);
      expect.fail('it listens twice');
    } catch (error) {
      expect(error)
        .to.be.instanceOf(HttpListenError)
        .with.property('message')
        .that.matches(/EADDRINUSE.*--http/);
    }
  });

  it('closes with the signal, kept connections included', async () => {
    const own = new AbortController();
    const other = await serveHttp(LOOPBACK, sources, silentLog, own.signal);
    const socket = connect(other.address.port, other.address.host);
    socket.on('error', () => {});
    await once(socket, 'connect');
    socket.write('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'data');
    own.abort();
    await once(socket, 'close');
    await other.close();
    const late = connect(other.address.port, other.address.host);
    const [error] = await once(late, 'error');
    expect(error.code).to.equal('ECONNREFUSED');
  });
});
