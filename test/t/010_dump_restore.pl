# Dump and restore bring all rows of every tenant back, in whatever locale.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off");
$node->start;

$node->safe_psql('postgres', 'CREATE DATABASE live; CREATE DATABASE copy; CREATE ROLE tenant_role;');
$node->safe_psql('live', q{
	CREATE EXTENSION contactsync;
	SELECT contactsync.add_source('crm', 'canonical', '{"class": "crm"}'), contactsync.add_source('phone', 'canonical');
	SELECT contactsync.set_policy('note', 'manual_review');
	SELECT contactsync.ingest(s, i::text, jsonb_build_object('last_name', 'n' || i, 'emails', ARRAY['p' || i || '@x.org'], 'note', s),
		'2026-01-01', idempotency_key => s || i)
	FROM generate_series(1, 50) i, unnest(ARRAY['crm', 'phone']) s;
	SELECT contactsync.process();
	SELECT contactsync.resolve_conflict((SELECT min(id) FROM contactsync.conflicts), 1);
	SELECT contactsync.ingest('crm', 'bad', '{"emails": 5}', '2026-01-01');
	SELECT contactsync.process();
	SELECT contactsync.ingest('crm', 'waiting', '{"note": "w"}', '2026-01-01');
	INSERT INTO contactsync.tenants (tenant_id, role_name) VALUES ('acme', 'tenant_role');
	SET contactsync.tenant = 'acme';
	SELECT contactsync.add_source('crm', 'canonical');
	SELECT contactsync.ingest('crm', '1', '{"last_name": "Other"}', '2026-01-01');
	SELECT contactsync.process();
	CREATE TABLE public.own (c contactsync.contact);
	INSERT INTO public.own VALUES ('{"emails": ["a@b.org"]}');
});

my $dump = $node->basedir . '/live.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('live') ], 'dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'restore');

for my $table (qw(tenants sources policies inbox inbox_dedup records observations identities contact_aliases
	contacts decisions conflicts audit_log tenant_state))
{
	my $order = $table eq 'tenants' ? "WHERE tenant_id <> 'default'" : '';
	my $query = qq{SELECT t::text COLLATE "C" FROM contactsync.$table t $order ORDER BY 1};
	my $rows = $node->safe_psql('live', $query);
	isnt($rows, '', "$table has rows") if $table ne 'tenants';
	is($node->safe_psql('copy', $query), $rows, "$table is the same");
}
is($node->safe_psql('copy', 'SELECT c FROM public.own'), $node->safe_psql('live', 'SELECT c FROM public.own'),
	'a table of the user too');

# the copy reads, and does nothing else until it is told to
is($node->safe_psql('copy', 'SELECT count(*) FROM contactsync.directory'), '50', 'the copy can be read');
for my $call (q{ingest('crm', 'new', '{}', now())}, 'process()', q{add_source('x', 'canonical')}, q{set_policy('title', 'manual_review')})
{
	my ($rc, $out, $err) = $node->psql('copy', "\\set VERBOSITY sqlstate\nSELECT contactsync.$call");
	like($err, qr/55000/, "$call is refused in a copy");
}
$node->safe_psql('copy', 'SELECT contactsync.activate()');
$node->safe_psql('copy', q{SELECT contactsync.ingest('crm', 'new', '{"last_name": "New"}', '2026-01-01')});
is($node->safe_psql('copy', 'SELECT contactsync.process()'), '2', 'activated, it applies what was waiting and what is new');
is($node->safe_psql('copy', q{SELECT count(*) = count(DISTINCT id) FROM contactsync.records}), 't',
	'identity sequences go on where they were');
is($node->safe_psql('copy', q{SELECT relrowsecurity AND relforcerowsecurity AND pg_get_userbyid(relowner) = 'contactsync_owner'
	FROM pg_class WHERE oid = (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'contactsync.audit_log'::regclass LIMIT 1)}), 't',
	'partitions of audit_log are guarded in the copy too');

# a rolled back first call leaves a new database new
$node->safe_psql('postgres', q{CREATE EXTENSION contactsync;
	BEGIN; SELECT contactsync.add_source('crm', 'canonical'); ROLLBACK;
	SELECT contactsync.add_source('crm', 'canonical');});
pass('a rolled back first call does no harm');

# a crash loses nothing that was committed, and applies nothing twice
$node->safe_psql('live', q{SELECT contactsync.process();
	SELECT contactsync.ingest('crm', 'c' || i, jsonb_build_object('last_name', 'c' || i), '2026-01-01') FROM generate_series(1, 200) i;});
my $before = $node->safe_psql('live', 'SELECT count(*) FROM contactsync.observations');
my $psql = $node->background_psql('live');
$psql->query('BEGIN; SELECT contactsync.process();');
$node->stop('immediate');
$psql->{run}->finish;
$node->start;
is($node->safe_psql('live', 'SELECT count(*) FROM contactsync.observations'), $before, 'what a crash interrupted is undone');
is($node->safe_psql('live', 'SELECT contactsync.process()'), '200', 'and is applied after it');
is($node->safe_psql('live', 'SELECT count(*) FROM contactsync.observations') - $before, 200, 'once');
$node->stop;
done_testing();
