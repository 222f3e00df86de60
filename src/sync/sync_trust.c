/*
 * sync_trust.c
 *		Where the credentials of a source may go.
 *
 * To the origin of its URL, and to hosts that it or its connector names: some
 * providers keep each account on a host of its own, to which the one that everybody
 * knows leads.  What an answer leads to elsewhere is not asked at all.
 */
#include "postgres.h"

#include "compat.h"
#include "sync/sync.h"

static bool
listed(Jsonb *json, const char *url)
{
	JsonbValue *hosts = getKeyJsonValueFromContainer(&json->root, "trusted_hosts", 13, NULL);

	if (hosts == NULL || hosts->type != jbvBinary || !JsonContainerIsArray(hosts->val.binary.data))
		return false;
	for (int i = 0; i < JsonContainerSize(hosts->val.binary.data); i++)
	{
		char	   *host = sync_scalar_text(getIthJsonbValueFromContainer(hosts->val.binary.data, i));

		if (host && http_url_on_host(url, host))
			return true;
	}
	return false;
}

bool
sync_trusts(SyncRun *run, const char *url)
{
	return http_url_same_origin(run->url, url) || listed(run->spec, url) || listed(run->settings, url);
}

char *
sync_follow(SyncRun *run, const char *reference)
{
	char	   *url = http_url_resolve(run->request, reference);
	char	   *host;

	if (url && sync_trusts(run, url))
		return url;
	host = url ? http_url_host(url) : NULL;
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 host ? errmsg("the provider's answer leads to another server: %s", host) :
			 errmsg("the provider's answer leads to what is no URL"),
			 errhint("If the credentials of the source may go there, name it in the setting \"trusted_hosts\".")));
}
