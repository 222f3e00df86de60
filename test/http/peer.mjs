// Servers that the HTTP engine is tested with: peer.mjs PORTS-FILE PARENT [CERTIFICATES]
//
// "plain" speaks HTTP/1.1 as the path says, byte by byte where that is what is tested:
//   /raw/HEX[/THEN]       these bytes, and then: keep (default), close, hang
//   /size/N  /gzip/N      a body of N bytes; the same of zeros, compressed
//   /until/N              a body of N bytes that ends with the connection
//   /headers/N/SIZE       N headers of SIZE bytes
//   /wait/MS/N            after a while
//   /drip/MS              a byte each MS
//   /silent               no answer at all
//   /once                 an answer, and the connection is closed when it is used again, unread
//   /echo                 the request
//   /count                {"connections", "open", "most", "requests"} since the last
// With a folder of certificates (good, self, other, expired, client, ca; .crt and .key):
// "good", "self", "other" and "expired" show those, speak HTTP/2 and HTTP/1.1, and know
// /count, /wait/MS/N, /size/N and /echo; "old" does not speak HTTP/2; "mutual" wants to see
// a certificate of ca. Writes the ports as JSON, and ends with PARENT.
import fs from 'node:fs'
import http2 from 'node:http2'
import https from 'node:https'
import net from 'node:net'
import zlib from 'node:zlib'

const [portsFile, parent, folder] = process.argv.slice(2)
const ports = {}

function counter() {
	return { connections: 0, open: 0, most: 0, requests: 0 }
}

function report(count) {
	const now = JSON.stringify(count)
	Object.assign(count, { connections: 0, most: count.open, requests: 0 })
	return now
}

function countConnections(server, event, count) {
	server.on(event, socket => {
		count.connections++
		count.open++
		count.most = Math.max(count.most, count.open)
		socket.on('error', () => {})
		socket.on('close', () => count.open--)
	})
}

// ---- plain ----

function answer(body, headers = '') {
	return Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\n${headers}Content-Length: ${body.length}\r\n\r\n`), body])
}

function plain() {
	const count = counter()
	const server = net.createServer(socket => {
		let buffer = ''
		let last = ''
		socket.setNoDelay(true)
		socket.on('data', data => {
			if (data[0] === 0x16) return socket.destroy()	// somebody begins with TLS
			buffer += data.toString('latin1')
			for (;;) {
				const end = buffer.indexOf('\r\n\r\n')
				if (end < 0) return
				const length = Number((buffer.slice(0, end).match(/content-length: *(\d+)/i) ?? [0, 0])[1])
				if (buffer.length < end + 4 + length) return
				const request = buffer.slice(0, end + 4 + length)
				buffer = buffer.slice(end + 4 + length)
				if (last === 'once') return socket.destroy()
				const path = request.split(' ')[1].split('/')
				if (path[1] !== 'count') count.requests++
				last = path[1]
				serve(socket, request, path)
			}
		})
	})
	function serve(socket, request, [, what, a, b]) {
		switch (what) {
			case 'raw':
				socket.write(Buffer.from(a, 'hex'))
				if (b === 'close') socket.end()
				break
			case 'size': socket.write(answer(Buffer.alloc(Number(a), 'x'))); break
			case 'until': socket.end(Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\n\r\n'), Buffer.alloc(Number(a), 'x')])); break
			case 'headers': socket.write(answer(Buffer.alloc(0), `X-A: ${'y'.repeat(Number(b) - 7)}\r\n`.repeat(Number(a)))); break
			case 'gzip': socket.write(answer(zlib.gzipSync(Buffer.alloc(Number(a))), 'Content-Encoding: gzip\r\n')); break
			case 'wait': setTimeout(() => socket.write(answer(Buffer.alloc(Number(b ?? 2), 'x'))), Number(a)); break
			case 'drip': {
				socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n')
				const timer = setInterval(() => socket.write('x'), Number(a))
				socket.on('close', () => clearInterval(timer))
				break
			}
			case 'silent': break
			case 'once': socket.write(answer(Buffer.from('once'))); break
			case 'echo': socket.write(answer(Buffer.from(request.replaceAll('\r\n', '~')))); break
			case 'count': socket.write(answer(Buffer.from(report(count)))); break
			default: socket.write('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n')
		}
	}
	countConnections(server, 'connection', count)
	return server
}

// ---- TLS ----

function tls(name, options = {}, two = true) {
	const count = counter()
	const handler = (request, response) => {
		const [, what, a, b] = request.url.split('/')
		if (what === 'count') return response.end(report(count))
		count.requests++
		if (what === 'wait') setTimeout(() => response.end('x'.repeat(Number(b ?? 2))), Number(a))
		else if (what === 'size') response.end(Buffer.alloc(Number(a), 'x'))
		else if (what === 'echo') response.end(JSON.stringify({ headers: request.headers, client: request.socket.getPeerCertificate?.().subject?.CN }))
		else response.end('ok')
	}
	const all = { key: fs.readFileSync(`${folder}/${name}.key`), cert: fs.readFileSync(`${folder}/${name}.crt`), ...options }
	const server = two ? http2.createSecureServer({ allowHTTP1: true, ...all }, handler) : https.createServer(all, handler)
	server.on('tlsClientError', () => {})
	server.on('sessionError', () => {})
	countConnections(server, 'secureConnection', count)
	return server
}

const servers = { plain: plain() }
if (folder) {
	for (const name of ['good', 'self', 'other', 'expired']) servers[name] = tls(name)
	servers.old = tls('good', {}, false)
	servers.mutual = tls('good', { ca: fs.readFileSync(`${folder}/ca.crt`), requestCert: true, rejectUnauthorized: true })
}
let left = Object.keys(servers).length
for (const [name, server] of Object.entries(servers))
	server.listen(0, process.env.LISTEN ?? '127.0.0.1', () => {
		ports[name] = server.address().port
		if (--left > 0) return
		fs.writeFileSync(`${portsFile}.new`, JSON.stringify(ports))
		fs.renameSync(`${portsFile}.new`, portsFile)
	})
setInterval(() => { try { process.kill(Number(parent), 0) } catch { process.exit() } }, 1000)
