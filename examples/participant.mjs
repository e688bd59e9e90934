#!/usr/bin/env node
// A service that takes part in global transactions: what participant.py does, in
// Node, which has no database in its standard library (before version 22).
//
//     examples/participant.mjs [--port 8080] [--database accounts.json] [--key whsec_...]
//
// Its database is one file, and a transaction writes it anew: to another file,
// which is flushed and then renamed over it.  After a crash the old one or the
// new one is there, whole, accounts and notes of the barrier in the same state.
// One process has it, and does one transaction after the other, so nothing needs
// a lock.  That is good for some thousands of accounts; with a database server
// the barrier is the same, with INSERT ... ON CONFLICT DO NOTHING.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '8080' },
    database: { type: 'string', default: 'accounts.json' },
    key: { type: 'string' },
  },
});

class Refused extends Error {}

// ---------------------------------------------------------------- the database

let state = { accounts: new Map(), notes: new Set(), sent: new Map() };
if (existsSync(options.database)) {
  const { accounts, notes, sent } = JSON.parse(readFileSync(options.database, 'utf8'));
  state = { accounts: new Map(accounts), notes: new Set(notes), sent: new Map(sent) };
}

function flush(path) {
  const file = openSync(path, 'r');
  fsyncSync(file);
  closeSync(file);
}

// Runs work(tables); what it changed is durable when this returns, and gone when it throws.
function transaction(work) {
  const tables = structuredClone(state);
  const answer = work(tables);
  const file = openSync(options.database + '.new', 'w');
  writeFileSync(file, JSON.stringify({ accounts: [...tables.accounts], notes: [...tables.notes], sent: [...tables.sent] }));
  fsyncSync(file);
  closeSync(file);
  renameSync(options.database + '.new', options.database);
  flush(dirname(options.database));
  state = tables;
  return answer;
}

// ---------------------------------------------------------------- the barrier

const undoes = { compensate: 'action', cancel: 'try' };

// True: it was not noted before.
function note(tables, gid, branch, op) {
  const key = JSON.stringify([gid, branch, op]);
  const first = !tables.notes.has(key);
  tables.notes.add(key);
  return first;
}

// Is it to be done?  Called in the transaction that does it.
function barrier(tables, gid, branch, op) {
  const nothingToUndo = Object.hasOwn(undoes, op) && note(tables, gid, branch, undoes[op]);
  const first = note(tables, gid, branch, op);
  return first && !nothingToUndo;
}

// ---------------------------------------------------------------- the business

// What each operation does: how much is added to the amount, and to what is frozen.
const acts = {
  action: [-1, 0], compensate: [1, 0],
  try: [-1, 1], confirm: [0, -1], cancel: [1, -1],
  message: [1, 0],
};

function change(tables, name, op, by) {
  const account = tables.accounts.get(name) ?? [100, 0];
  const [amount, frozen] = [account[0] + acts[op][0] * by, account[1] + acts[op][1] * by];
  if (amount < 0 || frozen < 0) throw new Refused('there is not enough in the account');
  tables.accounts.set(name, [amount, frozen]);
}

function operate(tables, name, gid, branch, op, by) {
  if (!barrier(tables, gid, branch, op)) return { done: 'nothing' };
  change(tables, name, op, by);
  return { done: op };
}

// Our own transaction, which a message tells of: a check finds its gid, or has forbidden it.
function send(tables, name, gid, by) {
  if (tables.sent.has(gid)) throw new Refused('this transaction was given up, or is done already');
  tables.sent.set(gid, 'commit');
  change(tables, name, 'action', by);
  return { sent: gid };
}

// Who says rollback makes sure that it stays so: a later send() finds that.
function check(tables, gid) {
  if (!tables.sent.has(gid)) tables.sent.set(gid, 'rollback');
  return { decision: tables.sent.get(gid) };
}

function handle(tables, path, headers, question) {
  const op = headers['retry-operation'] ?? 'message';
  const gid = headers['retry-gid'] ?? headers['webhook-id'];
  const branch = headers['retry-branch'] ?? 'message';
  const [name, verb] = path.replace(/^\/+|\/+$/g, '').split('/');
  const by = question?.amount;

  if (op === 'check' || verb === 'send') {
    if (typeof question?.gid !== 'string') throw new TypeError('gid');
    if (op === 'check') return check(tables, question.gid);
  }
  if (!Number.isSafeInteger(by) || by < 0) throw new TypeError('amount');
  if (verb === 'send') return send(tables, name, question.gid, by);
  if (!Object.hasOwn(acts, op) || gid === undefined) throw new TypeError('operation');
  return operate(tables, name, gid, branch, op, by);
}

// ---------------------------------------------------------------- requests

// One of the signatures is by our key, over these bytes, and made just now.
function signed(headers, body) {
  const { 'webhook-id': id = '', 'webhook-timestamp': sent = '', 'webhook-signature': signatures = '' } = headers;
  if (!/^\d{1,12}$/.test(sent) || Math.abs(Date.now() / 1000 - Number(sent)) > 300) return false;
  const key = Buffer.from(options.key.replace(/^whsec_/, ''), 'base64');
  const good = Buffer.from('v1,' + createHmac('sha256', key).update(`${id}.${sent}.`).update(body).digest('base64'));
  return signatures.split(' ').map((one) => Buffer.from(one))
    .some((one) => one.length === good.length && timingSafeEqual(one, good));
}

function answer(response, status, content) {
  const body = JSON.stringify(content);
  response.writeHead(status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) });
  response.end(body);
}

function take(request, response, body) {
  if (request.method === 'GET') return answer(response, 200, Object.fromEntries(state.accounts));
  if (options.key && !signed(request.headers, body)) {
    return answer(response, 401, { error: 'not signed by the key, or too old' });
  }
  try {
    answer(response, 200, transaction((tables) => handle(tables, request.url, request.headers, JSON.parse(body))));
  } catch (why) {
    if (why instanceof Refused) answer(response, 409, { error: why.message });
    else if (why instanceof SyntaxError || why instanceof TypeError) answer(response, 400, { error: `not understood: ${why.message}` });
    else answer(response, 500, { error: 'the transaction was not made' });
  }
}

const server = createServer((request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => take(request, response, Buffer.concat(pieces)));
});
server.listen(Number(options.port), '127.0.0.1', () => console.log('listening on port', server.address().port));
