// Reads a terminal with one of the npm clients and prints what it got as one line of JSON.
// Usage: node read_terminal.js node-zklib|zkteco-js tcp|udp PORT
'use strict'

const [library, transport, port] = process.argv.slice(2)
const TIMEOUT_MS = 5000
const quiet = () => {}
console.log = quiet // both clients chat on stdout
console.error = quiet

async function withNodeZklib () {
  const Tcp = require('node-zklib/zklibtcp')
  const Udp = require('node-zklib/zklibudp')
  const client = transport === 'udp'
    ? new Udp('127.0.0.1', Number(port), TIMEOUT_MS, 0)
    : new Tcp('127.0.0.1', Number(port), TIMEOUT_MS)
  await client.createSocket()
  await client.connect()
  const info = await client.getInfo()
  const users = (await client.getUsers()).data
  const punches = (await client.getAttendances()).data
  await client.disconnect()
  return {
    info,
    users: users.map(u => [u.userId, u.name]),
    punches: punches.map(p => [p.deviceUserId, p.recordTime])
  }
}

async function withZktecoJs () {
  const Tcp = require('zkteco-js/src/ztcp')
  const Udp = require('zkteco-js/src/zudp')
  const client = transport === 'udp'
    ? new Udp('127.0.0.1', Number(port), TIMEOUT_MS, 0)
    : new Tcp('127.0.0.1', Number(port), TIMEOUT_MS)
  await client.createSocket()
  await client.connect()
  const info = await client.getInfo()
  const serial = transport === 'tcp' ? await client.getSerialNumber() : null
  const users = (await client.getUsers()).data
  const punches = (await client.getAttendances()).data
  await client.disconnect()
  return {
    info,
    serial,
    users: users.map(u => [u.userId, u.name]),
    punches: punches.map(p => [p.user_id, p.record_time])
  }
}

(library === 'node-zklib' ? withNodeZklib() : withZktecoJs())
  .then(result => { process.stdout.write(JSON.stringify(result) + '\n', () => process.exit(0)) })
  .catch(error => { process.stderr.write(String(error && (error.stack || JSON.stringify(error))) + '\n', () => process.exit(1)) })
