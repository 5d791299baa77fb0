#!/usr/bin/env -S node --max-semi-space-size=1
/** `/opt/bin/flanneld`: vtepd, told in flannel's words. The command is flannel-daemon.ts's. */
process.argv.splice(2, 0, 'flanneld');
await import('./vtepd.ts');
