/*
 * secret.c
 *		Credentials of sources: kept sealed, or as references to files.
 *
 * A literal is sealed by AES-256-GCM under the key of contactsync.secret_key_file:
 *
 *		version (1 byte) || nonce (12) || tag (16) || ciphertext
 *
 * with tenant, source and name as associated data, so that a row moved to
 * another source does not open there.  The file may hold several keys, a line
 * each: the first seals, all open, so that a key can be replaced in peace.  A reference is a path below
 * contactsync.secret_directory, read whenever the secret is used, so that a
 * file that is replaced takes effect at once.  Tenants must not name each
 * other's files: those of a tenant lie below tenants/<tenant> in that directory,
 * and those of the tenant default anywhere else in it.
 *
 * Plain text never reaches a message.  OpenSSL is called with all memory
 * allocated beforehand, so that nothing throws while its context is open.
 */
#include "postgres.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "storage/fd.h"
#include "utils/builtins.h"

#include "compat.h"
#include "guc.h"
#include "store/guard.h"
#include "store/secret.h"

#define SECRET_KEY_LEN		32
#define SECRET_MAX_KEYS		8
#define SECRET_NONCE_LEN	12
#define SECRET_TAG_LEN		16
#define SECRET_VERSION		1
#define SECRET_OVERHEAD		(1 + SECRET_NONCE_LEN + SECRET_TAG_LEN)
#define SECRET_MAX_LEN		65536

/* What a sealed value looks like. */
typedef struct SealedSecret
{
	uint8		version;
	uint8		nonce[SECRET_NONCE_LEN];
	uint8		tag[SECRET_TAG_LEN];
	uint8		text[FLEXIBLE_ARRAY_MEMBER];
} SealedSecret;

PG_FUNCTION_INFO_V1(secret_seal_sql);
PG_FUNCTION_INFO_V1(secret_reseal_sql);
PG_FUNCTION_INFO_V1(secret_check_file_sql);

/*
 * Read at most max bytes of a regular file into buf, which has room for one
 * more; the length, or -1 with errno set.  EFBIG: there is more in it.
 */
static int
read_small_file(const char *path, char *buf, int max)
{
	/* O_NONBLOCK: opening a FIFO must not wait for its writer */
	int			fd = OpenTransientFile(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | PG_BINARY);
	struct stat st;
	int			len = 0;
	int			save_errno = 0;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) != 0)
		save_errno = errno;
	else if (!S_ISREG(st.st_mode))
		save_errno = EINVAL;
	while (save_errno == 0 && len <= max)
	{
		ssize_t		n = read(fd, buf + len, max + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			save_errno = errno;
		if (n <= 0)
			break;
		len += n;
	}
	if (save_errno == 0 && len > max)
		save_errno = EFBIG;
	CloseTransientFile(fd);
	errno = save_errno;
	return save_errno ? -1 : len;
}

/* A key from a line of hex digits; false if it is none. */
static bool
parse_key(const char *line, int len, uint8 *key)
{
	const char *digits = "0123456789abcdef";

	if (len != 2 * SECRET_KEY_LEN)
		return false;
	for (int i = 0; i < len; i++)
	{
		const char *d = line[i] ? strchr(digits, pg_tolower((unsigned char) line[i])) : NULL;

		if (d == NULL)
			return false;
		if (i % 2 == 0)
			key[i / 2] = (d - digits) << 4;
		else
			key[i / 2] |= d - digits;
	}
	return true;
}

/* The keys, the one in force first; how many there are.  The caller wipes them. */
static int
read_keys(uint8 keys[][SECRET_KEY_LEN])
{
	char		buf[SECRET_MAX_KEYS * (2 * SECRET_KEY_LEN + 2) + 8 + 1];
	char		path[PATH_MAX];
	int			len = -1;
	int			n = 0;
	bool		good = true;

	if (guc_secret_key_file == NULL || guc_secret_key_file[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there is no key to seal secrets with"),
				 errhint("Set contactsync.secret_key_file, or give the secret as {\"file\": path}.")));

	/* the administrator's own setting may well be a link */
	if (realpath(guc_secret_key_file, path) != NULL)
		len = read_small_file(path, buf, sizeof(buf) - 1);
	if (len < 0 && errno != EFBIG)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the file of contactsync.secret_key_file: %m")));

	for (int at = 0, next; at < len && good; at = next + 1)
	{
		int			end;

		for (next = at; next < len && buf[next] != '\n'; next++)
			;
		for (end = next; end > at && buf[end - 1] == '\r'; end--)
			;
		if (end > at)
		{
			good = n < SECRET_MAX_KEYS && parse_key(buf + at, end - at, keys[n]);
			n++;
		}
	}
	explicit_bzero(buf, sizeof(buf));
	if (!good || n == 0)
	{
		explicit_bzero(keys, SECRET_MAX_KEYS * SECRET_KEY_LEN);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file of contactsync.secret_key_file holds no key"),
				 errdetail("A key is 64 hex digits.")));
	}
	return n;
}

/* Tenant, source and name, each but the last ended by a zero byte. */
static uint8 *
associated_data(const char *source, const char *name, int *len)
{
	const char *tenant = guard_current_tenant();
	size_t		tenant_len = strlen(tenant) + 1;
	size_t		source_len = strlen(source) + 1;
	size_t		name_len = strlen(name);
	uint8	   *ad = palloc(tenant_len + source_len + name_len);

	memcpy(ad, tenant, tenant_len);
	memcpy(ad + tenant_len, source, source_len);
	memcpy(ad + tenant_len + source_len, name, name_len);
	*len = tenant_len + source_len + name_len;
	return ad;
}

/*
 * Encrypt in to out (len bytes each) and set the tag, or decrypt and check it.
 * False if that fails.  Throws nothing.
 */
static bool
run_gcm(bool seal, const uint8 *key, const uint8 *nonce, const uint8 *ad, int ad_len,
		const uint8 *in, uint8 *out, int len, uint8 *tag)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
	uint8		rest[16];
	int			n;
	bool		ok;

	ok = ctx != NULL &&
		EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce, seal) == 1 &&
		EVP_CipherUpdate(ctx, NULL, &n, ad, ad_len) == 1 &&
		EVP_CipherUpdate(ctx, out, &n, in, len) == 1 && n == len &&
		(seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, SECRET_TAG_LEN, tag) == 1) &&
		EVP_CipherFinal_ex(ctx, rest, &n) == 1 &&
		(!seal || EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, SECRET_TAG_LEN, tag) == 1);
	EVP_CIPHER_CTX_free(ctx);
	/* what is left in the queue would be blamed on the next TLS connection */
	ERR_clear_error();
	return ok;
}

static bytea *
seal(const char *source, const char *name, const char *text, int len)
{
	bytea	   *result = palloc0(VARHDRSZ + SECRET_OVERHEAD + len);
	SealedSecret *sealed = (SealedSecret *) VARDATA(result);
	int			ad_len;
	uint8	   *ad = associated_data(source, name, &ad_len);
	uint8		keys[SECRET_MAX_KEYS][SECRET_KEY_LEN];
	bool		ok;

	SET_VARSIZE(result, VARHDRSZ + SECRET_OVERHEAD + len);
	sealed->version = SECRET_VERSION;
	(void) read_keys(keys);
	ok = pg_strong_random(sealed->nonce, SECRET_NONCE_LEN) &&
		run_gcm(true, keys[0], sealed->nonce, ad, ad_len, (const uint8 *) text, sealed->text, len,
				sealed->tag);
	explicit_bzero(keys, sizeof(keys));
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not seal secret \"%s\"", name)));
	return result;
}

/* The plain text of a sealed value, ended by a zero byte; *key_number says which key opened it. */
static char *
unseal(const char *source, const char *name, bytea *value, int *key_number)
{
	SealedSecret *sealed = (SealedSecret *) VARDATA_ANY(value);
	int			len = (int) VARSIZE_ANY_EXHDR(value) - SECRET_OVERHEAD;
	char	   *text = palloc0(Max(len, 0) + 1);
	int			ad_len;
	uint8	   *ad = associated_data(source, name, &ad_len);
	uint8		keys[SECRET_MAX_KEYS][SECRET_KEY_LEN];
	bool		ok = false;

	if (len > 0 && sealed->version == SECRET_VERSION)
	{
		int			n = read_keys(keys);

		for (int i = 0; i < n && !ok; i++)
		{
			ok = run_gcm(false, keys[i], sealed->nonce, ad, ad_len, sealed->text, (uint8 *) text, len,
						 sealed->tag);
			*key_number = i;
		}
		explicit_bzero(keys, sizeof(keys));
	}
	if (!ok)
	{
		/* GCM writes the text before it knows of the tag */
		explicit_bzero(text, Max(len, 0));
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not open secret \"%s\" of source \"%s\"", name, source),
				 errdetail("It was sealed under another key or for another source, or it was changed."),
				 errhint("Bring back the key of contactsync.secret_key_file, or set the secret again.")));
	}
	return text;
}

static void
require_secret_directory(void)
{
	if (guc_secret_directory == NULL || guc_secret_directory[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("secrets cannot be read from files"),
				 errhint("Set contactsync.secret_directory.")));
}

static bool
has_parent_reference(const char *path)
{
	for (const char *p = path; *p; p++)
		if ((p == path || p[-1] == '/') && p[0] == '.' && p[1] == '.' &&
			(p[2] == '/' || p[2] == '\0'))
			return true;
	return false;
}

/* Is path below dir?  Both are canonical. */
static bool
is_below(const char *dir, const char *path)
{
	return path_is_prefix_of_path(dir, path) && strcmp(dir, path) != 0;
}

/* May the active tenant's secrets be read from this path below dir? */
static bool
is_ours(const char *dir, const char *path)
{
	const char *tenant = guard_current_tenant();
	char	   *tenants = psprintf("%s/tenants", dir);

	if (strcmp(tenant, "default") == 0)
		return is_below(dir, path) && !path_is_prefix_of_path(tenants, path);
	if (strchr(tenant, '/') || strcmp(tenant, ".") == 0 || strcmp(tenant, "..") == 0)
		return false;
	return is_below(psprintf("%s/%s", tenants, tenant), path);
}

/* Read the file of a secret, which must still be where it was allowed. */
static char *
read_reference(const char *source, const char *name, const char *path)
{
	char		dir[PATH_MAX];
	char		file[PATH_MAX];
	char	   *text;
	int			len = -1;

	require_secret_directory();

	/* links are followed here, once: what is opened then is no link itself */
	text = palloc0(SECRET_MAX_LEN + 2);
	if (realpath(guc_secret_directory, dir) != NULL && realpath(path, file) != NULL)
	{
		if (!is_ours(dir, file))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the file of secret \"%s\" of source \"%s\" is not below contactsync.secret_directory, where this tenant's may lie",
							name, source)));
		len = read_small_file(file, text, SECRET_MAX_LEN);
	}
	if (len < 0 && errno == EFBIG)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the file of secret \"%s\" of source \"%s\" is too large", name, source)));
	if (len < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the file of secret \"%s\" of source \"%s\": %m",
						name, source)));

	/* how editors and echo end a file */
	if (len > 0 && text[len - 1] == '\n')
		len--;
	if (len > 0 && text[len - 1] == '\r')
		len--;
	text[len] = '\0';
	if (len == 0 || !pg_verifymbstr(text, len, true))
	{
		explicit_bzero(text, len);
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the file of secret \"%s\" of source \"%s\" holds no text", name, source)));
	}
	return text;
}

/*
 * Secrets called name, and those called name.2 and so on if all of them are
 * wanted, in result, palloc'd in the caller's context.
 */
static int
fetch(const char *source, const char *name, bool all, char ***result)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			argtypes[3] = {TEXTOID, TEXTOID, BOOLOID};
	Datum		args[3];
	char	  **values;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	args[0] = CStringGetTextDatum(source);
	args[1] = CStringGetTextDatum(name);
	args[2] = BoolGetDatum(all);
	if (SPI_execute_with_args("SELECT name, reference, sealed FROM contactsync.source_secrets "
							  "WHERE tenant_id = contactsync.current_tenant() AND source = $1 "
							  "AND (name = $2 OR $3 AND pg_catalog.starts_with(name, $2 || '.')) "
							  "ORDER BY pg_catalog.length(name), name",
							  3, argtypes, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read secrets");

	n = (int) SPI_processed;
	values = MemoryContextAlloc(caller, sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		char	   *secret = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 1);
		char	   *reference = SPI_getvalue(tuple, SPI_tuptable->tupdesc, 2);
		char	   *text;

		if (reference)
			text = read_reference(source, secret, reference);
		else
		{
			bool		isnull;
			int			key_number;
			Datum		sealed = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 3, &isnull);

			text = unseal(source, secret, DatumGetByteaPP(sealed), &key_number);
		}
		values[i] = MemoryContextStrdup(caller, text);
		explicit_bzero(text, strlen(text));
	}
	SPI_finish();
	*result = values;
	return n;
}

char *
secret_get(const char *source, const char *name)
{
	char	  **values;

	return fetch(source, name, false, &values) > 0 ? values[0] : NULL;
}

int
secret_get_all(const char *source, const char *prefix, char ***values)
{
	return fetch(source, prefix, true, values);
}

/*
 * _seal_secret(source text, name text, secret text) -> bytea
 */
Datum
secret_seal_sql(PG_FUNCTION_ARGS)
{
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	text	   *secret = PG_GETARG_TEXT_PP(2);
	int			len = VARSIZE_ANY_EXHDR(secret);

	if (len == 0 || len > SECRET_MAX_LEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("secret \"%s\" is empty or too long", name)));
	PG_RETURN_BYTEA_P(seal(source, name, VARDATA_ANY(secret), len));
}

/*
 * _reseal_secret(source text, name text, sealed bytea) -> bytea
 *		The same under the key in force; NULL if it is that already.
 */
Datum
secret_reseal_sql(PG_FUNCTION_ARGS)
{
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			key_number;
	char	   *text = unseal(source, name, PG_GETARG_BYTEA_PP(2), &key_number);
	bytea	   *sealed = key_number == 0 ? NULL : seal(source, name, text, strlen(text));

	explicit_bzero(text, strlen(text));
	if (sealed == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(sealed);
}

/*
 * _check_secret_file(name text, path text) -> text
 *		The path in canonical form, if secrets may be read from there.
 */
Datum
secret_check_file_sql(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(1));
	char		dir[MAXPGPATH];

	require_secret_directory();
	strlcpy(dir, guc_secret_directory, MAXPGPATH);
	canonicalize_path(dir);
	if (is_absolute_path(path) && strlen(path) < MAXPGPATH && !has_parent_reference(path))
	{
		canonicalize_path(path);
		if (is_ours(dir, path))
			PG_RETURN_TEXT_P(cstring_to_text(path));
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the file of secret \"%s\" is not below contactsync.secret_directory, where this tenant's may lie", name),
			 errhint("Give an absolute path below that directory, without \"..\"; files of a tenant other than default lie in tenants/<tenant> there.")));
}
