/**
 * The packet as it passes the underlay, header by header with its bytes: an ordered list, so it is read
 * without being seen, and takes its shape from the room there is (a bar on a desk, a pile on a phone).
 */
import { type Html, html } from './html-text.ts';
import type { Layer, Overhead } from './schema.ts';
import type { ReportView } from './view.ts';

const ROLES = {
  outer: 'the underlay’s frame, there anyway',
  added: 'added by the path',
  inner: 'what the pod sends',
} as const;

/** The longest bar is this many times the shortest: a payload of 1,398 bytes would leave no room for headers. */
const MOST_SHARES = 60;
const LEAST_SHARES = 12;

/** All paths whose packets are known; equal ones share a picture. Undefined: none is known. */
export function packets(view: ReportView): Html | undefined {
  const { overheads } = view.report;
  if (overheads.length === 0) return undefined;
  const pictures = new Map<string, Overhead[]>();
  for (const overhead of overheads) {
    const key = JSON.stringify(overhead.layers);
    pictures.set(key, [...(pictures.get(key) ?? []), overhead]);
  }
  const present = new Set(overheads.flatMap(({ layers }) => layers.map(({ role }) => role)));
  const roles = (Object.keys(ROLES) as (keyof typeof ROLES)[]).filter((role) => present.has(role));
  return html`<ul class="legend">${roles.map((role) => html`<li><span class="chip ${role}"></span> ${ROLES[role]}</li>`)}</ul>
${[...pictures.values()].map((same) => picture(view, same))}
${overheadTable(view)}`;
}

function picture(view: ReportView, same: readonly Overhead[]): Html {
  const [first] = same;
  const titles = same.map(({ contestant }) => view.title(contestant)).join(' · ');
  const bytes = first?.layers.reduce((sum, layer) => sum + layer.bytes, 0) ?? 0;
  return html`<figure class="packet"><figcaption><h3>${titles}</h3><p>${bytes} bytes in a frame that is full, ${first?.computedBytes ?? 0} of them added.</p></figcaption>
<ol class="layers">${first?.layers.map(layer)}</ol></figure>
`;
}

const layer = ({ name, bytes, role }: Layer): Html =>
  html`<li class="${role}" style="--shares:${Math.min(MOST_SHARES, Math.max(LEAST_SHARES, bytes))}"><span class="name">${name}</span> <span class="bytes">${bytes}</span></li>`;

function overheadTable(view: ReportView): Html {
  const rows = view.report.overheads.map(
    ({ contestant, computedBytes, captured, innerMtuBytes, efficiency }) => {
      const found =
        captured === undefined
          ? html`not captured`
          : html`${captured.overheadBytes} <span class="${captured.agrees ? 'good' : 'bad'}">${captured.agrees ? 'as computed' : 'NOT as computed'}</span>`;
      const frame =
        captured === undefined
          ? ''
          : html`<details><summary>${captured.innerBytes}-byte packet, ${captured.frameBytes}-byte frame</summary><code class="hex">${captured.hex.replace(/(..)(?=.)/g, '$1 ')}</code></details>`;
      return html`<tr><th scope="row">${view.title(contestant)}</th><td class="n">${computedBytes}</td><td class="n">${found}</td><td class="n">${innerMtuBytes}</td><td class="n">${(100 * efficiency).toFixed(1)} %</td><td>${frame}</td></tr>`;
    },
  );
  return html`<p class="intro" id="overhead">Bytes added to each packet, computed from the headers and captured on the underlay. Of a full frame on the wire (preamble, FCS and gap included), the share that is TCP payload.</p>
<div class="scroll" tabindex="0" role="region" aria-labelledby="overhead"><table>
<thead><tr><th scope="col">path</th><th scope="col" class="n">computed</th><th scope="col" class="n">captured</th><th scope="col" class="n">largest packet of a pod</th><th scope="col" class="n">payload</th><th scope="col">captured frame</th></tr></thead>
<tbody>${rows}</tbody></table></div>`;
}
