# The listener behind nginx, which speaks TLS: as doc/operations.md shows it.
use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_hex);
use File::Spec;
use FindBin;
use JSON::PP;
use lib $FindBin::Bin;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('listener_proxy');
my $dir = File::Spec->rel2abs($node->basedir . '/proxy');
my ($port, $tls) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
mkdir $_ or die $! for $dir, "$dir/tmp";
$node->init;
$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'contactsync'
contactsync.secret_directory = '$dir'
contactsync.listen = '127.0.0.1:$port'
});
$node->start;
spew("$dir/hook", "topsecret\n");
$node->safe_psql('postgres', qq{
SET search_path = contactsync, public;
CREATE EXTENSION contactsync;
SELECT add_connector('hub', '{"driver": "canonical", "webhook": {"scheme": "github", "items": "\$.people[*]"}}');
SELECT add_source('hub', 'hub', '{"webhook": true}', '{"webhook": {"file": "$dir/hook"}}');
});

# the server block of the documentation, with the ports and files of this test
my $doc = slurp_file("$FindBin::Bin/../../doc/operations.md");
my ($server) = $doc =~ /```nginx\n(.*?)```/s or die 'no example';
$server =~ s/listen 443/listen 127.0.0.1:$tls/;
$server =~ s/127\.0\.0\.1:8451/127.0.0.1:$port/;
$server =~ s{/etc/ssl/hooks}{$dir/hooks}g;
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost',
	'-addext', 'subjectAltName=DNS:localhost', '-keyout', "$dir/hooks.key", '-out', "$dir/hooks.pem");
my $paths = join ' ', map { "${_}_temp_path $dir/tmp;" } qw(client_body proxy fastcgi uwsgi scgi);
spew("$dir/nginx.conf", "daemon off; worker_processes 1; pid $dir/pid; error_log $dir/error.log;\nevents {}\nhttp { access_log off; $paths\n$server}\n");
my $nginx = IPC::Run::start([ '/usr/sbin/nginx', '-p', $dir, '-c', "$dir/nginx.conf", '-e', "$dir/error.log" ]);

sub ask
{
	my (@more) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'curl', '-s', '--cacert', "$dir/hooks.pem", '-w', ' %{http_code} %{http_version}', @more ], '>', \$out, '2>', \$err);
	return $out;
}
my $body = encode_json({ people => [ map { { id => "p$_", updated_at => '2026-01-01T00:00:00Z', last_name => "Name$_" } } 1 .. 100 ] });
sub hook
{
	my ($id) = @_;
	return ask('-d', $body, '-H', "X-GitHub-Delivery: $id", '-H', 'X-Hub-Signature-256: sha256=' . hmac_sha256_hex($body, 'topsecret'),
		"https://localhost:$tls/webhooks/hub");
}
my $answer = '';
for (1 .. 1500) { $answer = hook('d1'); last if $answer =~ / 200 /; usleep(20_000) }
is($answer, '{"accepted": 100} 200 1.1', 'a webhook through the proxy');
is(hook('d1'), '{"duplicate": true} 200 1.1', 'and again');
is(ask('-d', $body, "https://localhost:$tls/webhooks/hub"), '{"error": "unauthorized"} 401 1.1', 'without a signature');
like(ask('-H', 'Transfer-Encoding: chunked', '-H', 'X-GitHub-Delivery: d2', '-H', 'X-Hub-Signature-256: sha256=' . hmac_sha256_hex($body, 'topsecret'),
	'-d', $body, "https://localhost:$tls/webhooks/hub"), qr/"accepted": 100.* 200 /, 'in chunks');
spew("$dir/large", 'x' x 300_000);
like(ask('--data-binary', "\@$dir/large", "https://localhost:$tls/webhooks/hub"), qr/ 413 /, 'too large');
ok($node->poll_query_until('postgres', 'SELECT count(*) = 100 FROM contactsync.directory'), 'all are in the directory');
$nginx->signal('QUIT');
$nginx->finish;
$node->stop('fast');
done_testing();
