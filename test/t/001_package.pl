# Versions agree, files are where the documents say, nothing is left by uninstalling.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($control) = slurp_file('contactsync.control') =~ /default_version = '([^']+)'/;
my ($meta) = slurp_file('META.json') =~ /"version": "([^"]+)"/;
my ($changes) = slurp_file('CHANGELOG.md') =~ /^## (\d\S*)/m;
is($meta, $control, 'META.json has the version of the control file');
is($changes, $control, 'CHANGELOG.md begins with the version of the control file');

my $node = PostgreSQL::Test::Cluster->new('package');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off");
$node->start;

$node->safe_psql('postgres', 'CREATE EXTENSION contactsync');
my $objects = q{SELECT count(*) FROM pg_class WHERE relnamespace = 'contactsync'::regnamespace};
cmp_ok($node->safe_psql('postgres', $objects), '>', 20, 'objects are there');
$node->safe_psql('postgres', 'DROP EXTENSION contactsync');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_namespace WHERE nspname = 'contactsync'}),
	'0', 'DROP EXTENSION leaves no schema');
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_proc WHERE probin LIKE '%contactsync%'}),
	'0', 'DROP EXTENSION leaves no function');
$node->safe_psql('postgres', 'CREATE EXTENSION contactsync');
pass('it can be created again with the roles there');

# roles that could be abused are refused
$node->safe_psql('postgres', 'DROP EXTENSION contactsync; ALTER ROLE contactsync_app LOGIN');
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION contactsync');
isnt($rc, 0, 'a role that can log in is refused');
like($err, qr/role "contactsync_app" exists and is not a plain group role/, 'and is named');
$node->safe_psql('postgres', 'ALTER ROLE contactsync_app NOLOGIN; CREATE EXTENSION contactsync');

$node->stop;
done_testing();
