/*
 * Servers that others wrote, for tests: server.mjs PORT_FILE PARENT
 *
 *	/scim /basic /header /query		SCIM 2.0 by scimmy and scimmy-routers: the same users, asked for with a
 *									bearer token, basic, an API key in the header X-Api-Key, one in ?api_key=
 *	/oauth/token					by oidc-provider: client credentials; refresh tokens, each of which serves once
 *	/jwt/token						assertions (RFC 7523), verified by jose
 *	/control						for the test, see below
 *
 * Ours are only the users' store (a Map), who has which credentials, and what breaks an
 * answer on purpose.  Writes its port to PORT_FILE, and ends with PARENT.
 */
import { randomUUID } from "node:crypto";
import { renameSync, writeFileSync } from "node:fs";
import http from "node:http";
import express from "express";
import { importSPKI, jwtVerify, decodeProtectedHeader } from "jose";
import Provider from "oidc-provider";
import SCIMMY from "scimmy";
import SCIMMYRouters from "scimmy-routers";

const [portFile, parent] = [process.argv[2], Number(process.argv[3])];

setInterval(() => {
	try {
		process.kill(parent, 0);
	} catch {
		process.exit(0);
	}
}, 500);

const server = http.createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const base = `http://127.0.0.1:${server.address().port}`;

/* What a test may set: {"op": "set", ...} */
const settings = {
	token: "static token",		/* a bearer token that always serves */
	basic: "ann:pw",
	key: "key",
	maxResults: 200,			/* most that a page holds, whatever is asked for */
	ttl: 3600,					/* of access tokens, in seconds */
	publicKey: null,			/* SPKI in PEM, of who signs assertions */
	issuer: null,
	audience: null,
	expiresIn: true				/* say when a token expires */
};
let seen = [];					/* requests */
let issued = [];				/* tokens: secrets that must be found nowhere */
let claims = null;				/* of the last good assertion */
let faults = [];

/* ---- users ---- */

let users = new Map();
let clock = null;				/* what time it is for meta.lastModified; null = what it is */

const now = () => (clock ?? new Date()).toISOString();
const missing = (id) => new SCIMMY.Types.Error(404, null, `Resource ${id} not found`);

SCIMMY.Resources.declare(SCIMMY.Resources.User, "User").extend(SCIMMY.Schemas.EnterpriseUser, false)
	.ingress((resource, data) => {
		const known = resource.id ? users.get(resource.id) : undefined;
		if (resource.id && !known)
			throw missing(resource.id);
		const user = JSON.parse(JSON.stringify(data));
		if ([...users.values()].some((u) => u.userName === user.userName && u.id !== resource.id))
			throw new SCIMMY.Types.Error(409, "uniqueness", "userName is taken");
		user.id = known?.id ?? randomUUID();
		user.meta = { created: known?.meta.created ?? now(), lastModified: now() };
		users.set(user.id, user);
		return user;
	})
	.egress((resource) => {
		if (resource.id) {
			if (!users.has(resource.id))
				throw missing(resource.id);
			return users.get(resource.id);
		}
		if (resource.constraints)
			resource.constraints.count = Math.min(resource.constraints.count ?? 20, settings.maxResults);
		const all = [...users.values()];
		return resource.filter ? resource.filter.match(all) : all;
	})
	.degress((resource) => {
		if (!users.delete(resource.id))
			throw missing(resource.id);
	});

/* ---- tokens ---- */

const secret = "s/cret +&=%\"";
const provider = new Provider(base, {
	clients: [
		{ client_id: "basic:client+&", client_secret: secret, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
			token_endpoint_auth_method: "client_secret_basic" },
		{ client_id: "post client", client_secret: secret, grant_types: ["client_credentials"], redirect_uris: [], response_types: [],
			token_endpoint_auth_method: "client_secret_post" },
		{ client_id: "app", client_secret: secret, grant_types: ["authorization_code", "refresh_token"], redirect_uris: ["https://app.example/"],
			token_endpoint_auth_method: "client_secret_post" }
	],
	cookies: { keys: ["of no use here"] },
	features: { clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
	findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
	rotateRefreshToken: true,
	scopes: ["offline_access", "contacts"],
	routes: { token: "/oauth/token" },
	ttl: { AccessToken: () => settings.ttl, ClientCredentials: () => settings.ttl, Grant: 86400, RefreshToken: 86400 }
});

for (const kind of ["access_token", "client_credentials", "refresh_token"])
	provider.on(`${kind}.saved`, (token) => issued.push(token.jti));

/* A refresh token as the authorization code grant would have given it, at a person's consent. */
async function mint() {
	const client = await provider.Client.find("app");
	const grant = new provider.Grant({ clientId: client.clientId, accountId: "ann" });
	grant.addOIDCScope("offline_access contacts");
	const grantId = await grant.save();
	return new provider.RefreshToken({ client, accountId: "ann", grantId, scope: "offline_access contacts", gty: "authorization_code" }).save();
}

let revoked = 0;				/* how many of those issued */

async function live(token) {
	if (issued.indexOf(token) < revoked)
		return undefined;
	const found = token && (await provider.AccessToken.find(token) ?? await provider.ClientCredentials.find(token));
	return found && !found.isExpired ? found : undefined;
}

async function authorize(req) {
	const header = req.get("authorization") ?? "";
	const good = {
		"/scim": async () => header === `Bearer ${settings.token}` || (header.startsWith("Bearer ") && await live(header.slice(7))),
		"/basic": () => header.startsWith("Basic ") && Buffer.from(header.slice(6), "base64").toString() === settings.basic,
		"/header": () => req.get("x-api-key") === settings.key,
		"/query": () => req.query.api_key === settings.key
	};
	if (!await good[req.baseUrl]())
		throw new Error("who are you?");
	return "ann";
}

async function takeAssertion(req, res) {
	try {
		if (req.body.grant_type !== "urn:ietf:params:oauth:grant-type:jwt-bearer")
			throw new Error("no such grant");
		const verified = await jwtVerify(req.body.assertion, await importSPKI(settings.publicKey, "RS256"), {
			algorithms: ["RS256"], issuer: settings.issuer, audience: settings.audience, maxTokenAge: "1 h",
			requiredClaims: ["iat", "exp"], currentDate: clock ?? new Date()
		});
		if (verified.payload.exp - verified.payload.iat > 3600)
			throw new Error("lives too long");
		claims = { ...verified.payload, header: decodeProtectedHeader(req.body.assertion) };
		const client = await provider.Client.find("post client");
		const token = await new provider.ClientCredentials({ client, scope: claims.scope }).save();
		res.json({ access_token: token, token_type: "Bearer", expires_in: settings.ttl });
	} catch (e) {
		res.status(400).json({ error: "invalid_grant", error_description: String(e.message) });
	}
}

/* ---- the test ---- */

/*
 * {"op": "log"}			what was asked since the last time, the claims of the last assertion, and all tokens
 * {"op": "set", ...}		settings
 * {"op": "clock", "at"}	the server's time from now on; null = the time that it is
 * {"op": "users", "users"}	these and no others, as SCIM would have them; {"count"}: as many
 * {"op": "held"}			what is stored
 * {"op": "revoke"}			no access token serves any more
 * {"op": "mint"}			a refresh token of the client app
 * {"op": "fault", "match", "status", "headers", "body", "pad", "hang", "after", "times"}
 *							what requests get whose method and URL have match in them: an answer, or none; with
 *							"answer": true only the answer is lost; with "remove" a user is gone just before
 */
const operations = {
	log: () => {
		const result = { requests: seen, claims, issued };
		seen = [];
		return result;
	},
	set: ({ op, ...rest }) => Object.assign(settings, rest),
	clock: ({ at }) => {
		clock = at ? new Date(at) : null;
		return {};
	},
	users: (request) => {
		users = new Map();
		for (const user of request.users ?? Array.from({ length: request.count }, (_, i) => ({
			userName: `user${i + 1}`, name: { givenName: `First${i + 1}`, familyName: `Last${i + 1}` },
			emails: [{ value: `p${i + 1}@scim.example`, type: "work", primary: true }]
		}))) {
			const id = user.id ?? randomUUID();
			users.set(id, { schemas: ["urn:ietf:params:scim:schemas:core:2.0:User"], ...user, id, meta: { created: now(), lastModified: now(), ...user.meta } });
		}
		return { ids: [...users.keys()] };
	},
	revoke: () => {
		revoked = issued.length;
		return {};
	},
	held: () => [...users.values()],
	mint: async () => ({ token: await mint() }),
	fault: (f) => {
		faults = f.match ? [...faults, { met: 0, ...f }] : [];
		return {};
	}
};

function breaks(req, res, next) {
	const what = `${req.method} ${req.originalUrl}`;
	const f = faults.find((x) => what.includes(x.match) && ++x.met > (x.after ?? 0) && x.met <= (x.after ?? 0) + (x.times ?? Infinity));
	if (f?.remove)
		users.delete(f.remove);
	if (!f || f.remove)
		return next();
	const answer = () => {
		if (f.hang)
			return;
		res.writeHead(f.status ?? 200, { "Content-Type": "application/json", ...f.headers });
		res.write(f.body ?? "");
		for (let left = f.pad ?? 0; left > 0; left -= 65536)
			res.write(" ".repeat(Math.min(left, 65536)));
		res.end();
	};
	if (!f.answer)
		return answer();
	/* let it be done, and say something else */
	res.end = () => {
		seen.push({ method: "-", url: "answered" });
		if (!f.hang)
			res.socket.destroy();
		return res;
	};
	next();
}

const app = express();
app.post("/control", express.json({ limit: "100mb", type: () => true }), async (req, res) => {
	res.json(await operations[req.body.op](req.body));
});
app.use((req, res, next) => {
	seen.push({ method: req.method, url: req.originalUrl, host: req.get("host") });
	if (clock)
		res.setHeader("Date", clock.toUTCString());
	next();
});
app.use(breaks);
app.use(["/scim", "/basic", "/header", "/query"], new SCIMMYRouters({ type: "bearer", handler: authorize }));
app.post("/jwt/token", express.urlencoded({ extended: false }), takeAssertion);
app.use((req, res, next) => {
	/* a provider that does not say how long its tokens live */
	if (!settings.expiresIn) {
		const end = res.end.bind(res);
		res.end = (data, ...rest) => {
			const body = Buffer.from(String(data).replace(/"expires_in":\d+,/, ""));
			res.setHeader("Content-Length", body.length);
			return end(body, ...rest);
		};
	}
	next();
}, provider.callback());
server.on("request", app);

writeFileSync(`${portFile}.new`, String(server.address().port));
renameSync(`${portFile}.new`, portFile);
