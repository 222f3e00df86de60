/*
 * sync_xml.c
 *		WebDAV's multistatus and error documents, by libxml2.
 *
 * The document is parsed as a whole, without network, entities or a DTD, and
 * then walked: names are matched by namespace, since prefixes and the order of
 * elements differ between servers.  Nothing of libxml2 calls back, and its tree
 * is freed whatever happens while it is walked.
 */
#include "postgres.h"

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "lib/stringinfo.h"

#include "sync/sync.h"

#define DAV			"DAV:"
#define CARDDAV		"urn:ietf:params:xml:ns:carddav"

static bool
is(const xmlNode *node, const char *ns, const char *name)
{
	return node->type == XML_ELEMENT_NODE && node->ns &&
		strcmp((const char *) node->ns->href, ns) == 0 &&
		strcmp((const char *) node->name, name) == 0;
}

static const xmlNode *
child(const xmlNode *node, const char *ns, const char *name)
{
	for (const xmlNode *c = node->children; c; c = c->next)
		if (is(c, ns, name))
			return c;
	return NULL;
}

/* The text of an element, without blanks around it unless exact; palloc'd. */
static char *
text_of(const xmlNode *node, bool exact)
{
	StringInfoData buf;
	char	   *p;

	initStringInfo(&buf);
	for (const xmlNode *c = node->children; c; c = c->next)
		if ((c->type == XML_TEXT_NODE || c->type == XML_CDATA_SECTION_NODE) && c->content)
			appendStringInfoString(&buf, (const char *) c->content);
	if (exact)
		return buf.data;
	while (buf.len > 0 && strchr(" \t\r\n", buf.data[buf.len - 1]))
		buf.data[--buf.len] = '\0';
	for (p = buf.data; *p && strchr(" \t\r\n", *p); p++)
		;
	return p;
}

/* "HTTP/1.1 404 Not Found"; 0 if it is none. */
static int
status_of(const xmlNode *node)
{
	const xmlNode *status = child(node, DAV, "status");
	char	   *text = status ? text_of(status, false) : NULL;
	char	   *code = text ? strchr(text, ' ') : NULL;

	return code ? atoi(code) : 0;
}

/* The href inside a property, as of current-user-principal. */
static char *
href_of(const xmlNode *property)
{
	const xmlNode *href = child(property, DAV, "href");

	return href ? text_of(href, false) : NULL;
}

static void
read_properties(const xmlNode *propstat, DavResponse *r)
{
	const xmlNode *prop = child(propstat, DAV, "prop");
	int			status = status_of(propstat);

	for (const xmlNode *p = prop ? prop->children : NULL; p; p = p->next)
	{
		if (status != 200)
		{
			if (is(p, CARDDAV, "address-data"))
				r->prop_status = status;
		}
		else if (is(p, DAV, "getetag"))
			r->etag = text_of(p, false);
		else if (is(p, CARDDAV, "address-data"))
			r->address_data = text_of(p, true);
		else if (is(p, DAV, "resourcetype"))
			r->is_addressbook = child(p, CARDDAV, "addressbook") != NULL;
		else if (is(p, DAV, "current-user-principal"))
			r->principal = href_of(p);
		else if (is(p, CARDDAV, "addressbook-home-set"))
			r->home = href_of(p);
	}
}

/* A response may name several hrefs, if it has a status and no properties. */
static void
read_response(const xmlNode *response, DavDocument *doc, int *max)
{
	for (const xmlNode *c = response->children; c; c = c->next)
	{
		DavResponse *r;

		if (!is(c, DAV, "href"))
			continue;
		if (doc->nresponses == *max)
		{
			*max *= 2;
			doc->responses = repalloc_huge(doc->responses, sizeof(DavResponse) * *max);
		}
		r = &doc->responses[doc->nresponses++];
		memset(r, 0, sizeof(*r));
		r->href = text_of(c, false);
		r->status = status_of(response);
		for (const xmlNode *p = response->children; p; p = p->next)
			if (is(p, DAV, "propstat"))
				read_properties(p, r);
	}
}

static bool
read_document(const xmlDoc *xml, DavDocument *doc)
{
	const xmlNode *root = xmlDocGetRootElement((xmlDoc *) xml);
	int			max = 64;

	if (root == NULL || xml->intSubset != NULL)
		return false;
	if (is(root, DAV, "error"))
	{
		for (const xmlNode *c = root->children; c; c = c->next)
			if (c->type == XML_ELEMENT_NODE)
				doc->error = pstrdup((const char *) c->name);
		return true;
	}
	if (!is(root, DAV, "multistatus"))
		return false;
	doc->responses = palloc(sizeof(DavResponse) * max);
	for (const xmlNode *c = root->children; c; c = c->next)
	{
		if (is(c, DAV, "response"))
			read_response(c, doc, &max);
		else if (is(c, DAV, "sync-token"))
			doc->sync_token = text_of(c, false);
	}
	return true;
}

bool
sync_xml_parse(const char *body, size_t len, DavDocument *doc)
{
	xmlDoc	   *xml;
	volatile bool ok = false;

	memset(doc, 0, sizeof(*doc));
	if (len == 0 || len > INT_MAX)
		return false;
	xml = xmlReadMemory(body, (int) len, NULL, NULL,
						XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
	if (xml == NULL)
		return false;
	PG_TRY();
	{
		ok = read_document(xml, doc);
	}
	PG_FINALLY();
	{
		xmlFreeDoc(xml);
	}
	PG_END_TRY();
	return ok;
}
