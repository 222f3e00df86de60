# Dump and restore bring all rows of every tenant back, in whatever locale.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'");
$node->start;

$node->safe_psql('postgres', 'CREATE DATABASE live; CREATE DATABASE copy; CREATE ROLE tenant_role;');
$node->safe_psql('live', q{
	CREATE EXTENSION contactsync;
	INSERT INTO contactsync.tenants (tenant_id, role_name) VALUES ('acme', 'tenant_role');
	INSERT INTO contactsync.connectors (tenant_id, name, spec) VALUES ('acme', 'mine', '{}');
	INSERT INTO contactsync.sources (tenant_id, name, connector, settings)
		SELECT 'acme', 's' || i, 'mine', '{"class": "crm"}' FROM generate_series(1, 5) i;
	INSERT INTO contactsync.records (tenant_id, source, source_id, state)
		SELECT 'acme', 's1', i::text, jsonb_build_object('first_name', 'n' || i)::contactsync.contact
		FROM generate_series(1, 100) i;
	INSERT INTO contactsync.contacts (tenant_id, id, contact, live, policy_version, last_modified, modified_by)
		SELECT 'acme', md5(i::text)::uuid, ('{"title": "x", "_provenance": {"title": {"source": "s1", "as_of": "infinity",
			"changed_at": "-infinity", "flags": ["estimate"]}}}')::contactsync.contact, true, 1, now(), 'test'
		FROM generate_series(1, 100) i;
	INSERT INTO contactsync.policies (tenant_id, version, policy, decided_by) VALUES ('acme', 1, '{}', 'postgres');
	CREATE TABLE public.own (c contactsync.contact);
	INSERT INTO public.own VALUES ('{"emails": ["a@b.org"]}');
});

my $dump = $node->basedir . '/live.dump';
$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $node->connstr('live') ], 'dump');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('copy'), $dump ], 'restore');

for my $table (qw(tenants connectors sources records contacts policies))
{
	my $order = $table eq 'tenants' ? "WHERE tenant_id <> 'default'" : '';
	my $query = qq{SELECT t::text COLLATE "C" FROM contactsync.$table t $order ORDER BY 1};
	is($node->safe_psql('copy', $query), $node->safe_psql('live', $query), "$table is the same");
}
is($node->safe_psql('copy', 'SELECT c FROM public.own'), $node->safe_psql('live', 'SELECT c FROM public.own'),
	'a table of the user too');
$node->safe_psql('copy', q{INSERT INTO contactsync.records (tenant_id, source, source_id) VALUES ('acme', 's1', 'new')});
is($node->safe_psql('copy', q{SELECT id FROM contactsync.records WHERE source_id = 'new'}), '101',
	'identity sequences go on where they were');
is($node->safe_psql('copy', q{SELECT count(*) FROM contactsync.activation}), '0', 'the copy is not activated');
$node->stop;
done_testing();
