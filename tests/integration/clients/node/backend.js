#!/usr/bin/env node
// A small backend: posts a message into a room, then watches who comes and who goes.
//
// Where the core is comes from the environment: PRESENCE_API, and if it asks for them PRESENCE_TOKEN and PRESENCE_CA (a PEM file).
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parseArgs, promisify } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

// The proto files are read at run time; nothing is generated. 64-bit numbers come as strings, enum values as their names.
const { presence } = grpc.loadPackageDefinition(protoLoader.loadSync('presence/v1/presence.proto', {
  includeDirs: [path.join(__dirname, '../proto')], longs: String, enums: String, defaults: true,
}));

// How a stream may end that is then taken up again: the core is stopping, or Redis is away; too many watch, or this one read too slowly, and if
// it still does, some seconds later, the stream is cut off: nobody here has cancelled it.
const PASSING = [grpc.status.UNAVAILABLE, grpc.status.RESOURCE_EXHAUSTED, grpc.status.CANCELLED];

// Prints who is online, then each change, until there were enough of them or the deadline has passed.
async function watch(service, metadata, changes, deadline) {
  const request = { everyone: {} };
  let failures = 0;
  for (;;) {
    const call = service.watchPresence(request, metadata, { deadline });
    try {
      for await (const response of call) {
        for (const user of response.presences) {
          const status = user.status.replace('STATUS_', '').toLowerCase();
          console.log(`${user.username || user.userId} is ${status}`);
        }
        failures = 0;
        request.resumeVersion = response.resumeVersion; // where to go on when the stream ends
        if (response.snapshotDone) console.log('watching');
        if (!response.snapshot) changes -= response.presences.length;
        if (changes <= 0) return;
      }
    } catch (error) {
      if (error.code === grpc.status.DEADLINE_EXCEEDED) return;
      if (!PASSING.includes(error.code)) throw error;
      // Nothing is lost. Not all at once: others were sent away, too.
      const pause = (500 + 500 * Math.random()) * Math.min(2 ** failures, 30);
      await sleep(Math.max(0, Math.min(pause, deadline - Date.now())));
      failures += 1;
    } finally {
      call.cancel(); // leaving the loop alone does not end the call
    }
  }
}

async function main() {
  const { values: options } = parseArgs({ options: {
    room: { type: 'string', default: 'channel_general' },
    text: { type: 'string', default: 'Hello from Node' },
    changes: { type: 'string', default: '2' }, // exit after so many
    seconds: { type: 'string', default: '60' }, // or after this time
  } });
  const deadline = Date.now() + Number(options.seconds) * 1000;
  const { PRESENCE_API = '127.0.0.1:50051', PRESENCE_CA, PRESENCE_TOKEN } = process.env;
  const credentials = PRESENCE_CA ? grpc.credentials.createSsl(fs.readFileSync(PRESENCE_CA)) : grpc.credentials.createInsecure();
  const metadata = new grpc.Metadata();
  if (PRESENCE_TOKEN) metadata.set('authorization', `Bearer ${PRESENCE_TOKEN}`);

  const service = new presence.v1.PresenceService(PRESENCE_API, credentials);
  const broadcast = promisify(service.broadcast).bind(service);
  const message = { roomId: options.room, dataJson: JSON.stringify({ content: options.text }) };
  const posted = await broadcast(message, metadata, { deadline });
  console.log(`posted to ${posted.reachedConnections} connections`);
  await watch(service, metadata, Number(options.changes), deadline);
  service.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
