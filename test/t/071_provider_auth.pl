# How sources authenticate: OAuth grants, rotation, refusals, keys; and that secrets
# stay what they are.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use JSON::PP;
use Peers;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my ($node, $dir) = peers_node('auth', 'log_min_messages = debug1');
my ($key, $newer) = ('ab' x 32, 'cd' x 32);
my ($emulator, $port) = start_providers($dir);

sub sql { return $node->safe_psql('postgres', "SET search_path = contactsync, public; $_[0]") }
sub run_source
{
	my ($source) = @_;
	return sql("SELECT sync('$source') AS run \\gset\nSELECT wait_for_run(:run, '60 s') AS state \\gset\n"
		. "SELECT :'state' || ' ' || coalesce(error_code, '-') FROM runs WHERE id = :run");
}
sub state_of { return sql("SELECT state, coalesce(last_error, '-') FROM status WHERE source = '$_[0]'") }
# A source with these secrets; more are settings.
sub source
{
	my ($name, $secret, $connector, %more) = @_;
	my $settings = encode_json({ url => "http://127.0.0.1:$port/scim", token_url => "http://127.0.0.1:$port/oauth/token", poll => JSON::PP::false,
		allow_http => JSON::PP::true, allow_private => JSON::PP::true, %more });
	my $s = encode_json($secret);
	# bind parameters: what stands in SQL text may get into logs
	return $node->safe_psql('postgres', qq{SET log_statement = 'none'; SET log_min_messages = 'warning'; SELECT contactsync.add_source('$name', '$connector', '$settings', \$s\$$s\$s\$)});
}

sql('CREATE EXTENSION contactsync');
control(op => 'reset', provider => 'scim', count => 3);

# ---- a refresh token ----
source('refresh', { refresh_token => 'r0', client_id => 'id', client_secret => 's/cret' }, 'scim');
is(run_source('refresh'), 'succeeded -', 'a refresh token gives an access token');
my $log = control(op => 'log');
is($log->{count}, 1, 'one is asked for');
is(run_source('refresh'), 'succeeded -', 'and used');
is(control(op => 'log')->{count}, 1, 'as long as it lives');
control(op => 'revoke');
is(run_source('refresh'), 'succeeded -', 'one that is refused before its time is replaced');
is(control(op => 'log')->{count}, 2, 'once');

# ---- one that the provider replaces ----
control(op => 'oauth', rotate => JSON::PP::true, expires_in => 2);
control(op => 'revoke');
is(run_source('refresh'), 'succeeded -', 'the refresh token is replaced');
is(control(op => 'log')->{refresh}, 'r3', 'by the provider');
my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'contactsync worker' AND datname = 'postgres'});
$node->restart;
control(op => 'revoke');
is(run_source('refresh'), 'succeeded -', 'and here, where a restart does not lose it');
is(control(op => 'log')->{refresh}, 'r4', 'nor the next');
is(sql(q{SELECT count(*) FROM source_secrets WHERE source = 'refresh' AND sealed IS NOT NULL AND position('r4' IN encode(sealed, 'escape')) = 0}), '3', 'sealed');
# a file cannot be written to
spew("$dir/refresh", 'r4');
source('filed', { refresh_token => { file => "$dir/refresh" }, client_id => 'id' }, 'scim');
control(op => 'revoke');
is(run_source('filed'), 'succeeded -', 'one that came from a file is kept sealed from then on');
is(sql(q{SELECT reference IS NULL, sealed IS NOT NULL FROM source_secrets WHERE source = 'filed' AND name = 'refresh_token'}), 't|t', 'in its place');
# the other source's is dead now: that is what rotation is for
control(op => 'revoke');
is(run_source('refresh') . ' ' . state_of('refresh'), 'failed 28000 stopped|the token endpoint refused the source\'s credentials with "invalid_grant"',
	'invalid_grant stops the source, and says so');
is(($node->psql('postgres', q{SELECT contactsync.sync('refresh')}))[0], 3, 'that then is not asked any more');
control(op => 'oauth', rotate => JSON::PP::false, expires_in => 3600);
source('refresh', { refresh_token => control(op => 'log')->{refresh}, client_id => 'id' }, 'scim');
sql(q{SELECT resume_source('refresh')});
is(run_source('refresh'), 'succeeded -', 'until somebody authorizes it anew');

# ---- refusals ----
my %codes = ('[503, "temporarily_unavailable"]' => 'failing 08006', '[400, "temporarily_unavailable"]' => 'failing 08006', '[429, "slow_down"]' => 'failing 08006',
	'[401, "invalid_client"]' => 'stopped 28000', '[400, "invalid_scope"]' => 'stopped 28000', '[403, "who knows: p1@scim.example"]' => 'stopped 28000');
for my $error (sort keys %codes)
{
	control(op => 'revoke');
	control(op => 'oauth', error => decode_json($error));
	my $run = run_source('refresh');
	my ($state) = split /\|/, state_of('refresh');
	is("$state " . ($run =~ s/failed //r), $codes{$error}, "$error: " . (split /\|/, state_of('refresh'))[1]);
	sql(q{SELECT resume_source('refresh')});
}
control(op => 'oauth', error => undef);
unlike(sql("SELECT string_agg(error, ' ') FROM runs"), qr/secret words|scim\.example/, 'what a token endpoint says more is repeated nowhere');
control(op => 'log');
control(op => 'mode', provider => 'scim', mode => 'status:401');
is(run_source('refresh'), 'failed 28000', 'a token that is refused twice is no token');
cmp_ok(scalar(grep { m{/oauth/token} } @{ control(op => 'log')->{requests} }), '<=', 2, 'and is not asked for again and again');
control(op => 'mode', provider => 'scim', mode => undef);

sql(q{SELECT resume_source('refresh')});

# ---- a token that dies in the middle of a run ----
control(op => 'reset', provider => 'scim', count => 3);
source('middle', { client_id => 'id', client_secret => 's/cret' }, 'scim', parameters => { page_size => '1' });
control(op => 'oauth', expires_in => undef);
control(op => 'mode', provider => 'scim', mode => 'status:401', skip => 1, times => 1);
is(run_source('middle'), 'succeeded -', 'the client credentials grant; a token that dies in the middle of a run is replaced');
is(sql(q{SELECT items FROM runs WHERE source = 'middle'}), '3', 'and the run goes on');

# ---- other ways ----
control(op => 'revoke');
sql(q{SELECT add_connector('basic', spec || '{"auth": {"client_auth": "basic"}}') FROM connectors WHERE name = 'scim'});
source('basic', { client_id => 'id', client_secret => 's/cret' }, 'basic');
is(run_source('basic'), 'succeeded -', 'client credentials by basic authentication');
source('wrong', { client_id => 'id', client_secret => 'wr0ng' }, 'scim');
is(run_source('wrong'), 'failed 28000', 'wrong ones');
system_or_bail('openssl', 'genrsa', '-out', "$dir/rsa.pem", '2048');
my ($modulus) = `openssl rsa -in $dir/rsa.pem -noout -modulus` =~ /Modulus=(\w+)/;
control(op => 'oauth', modulus => $modulus);
spew("$dir/account.json", encode_json({ type => 'service_account', client_email => 'robot@project.example', private_key_id => 'kid1', private_key => slurp_file("$dir/rsa.pem") }));
control(op => 'reset', provider => 'google', count => 3);
control(op => 'revoke');
source('robot', { service_account => { file => "$dir/account.json" } }, 'google', url => "http://127.0.0.1:$port/google", parameters => { subject => 'ann@x.org' });
is(run_source('robot'), 'succeeded -', 'a service account signs for its token');
my $claims = control(op => 'log')->{claims};
is("$claims->{iss} $claims->{sub} $claims->{aud} " . ($claims->{exp} - $claims->{iat}), 'robot@project.example ann@x.org https://oauth2.googleapis.com/token 3600', 'with its claims');
like($claims->{scope}, qr{/auth/contacts\.readonly$}, 'and scope');
system_or_bail('openssl', 'genrsa', '-out', "$dir/other.pem", '2048');
source('thief', { client_id => 'robot@project.example', private_key => slurp_file("$dir/other.pem") }, 'google', url => "http://127.0.0.1:$port/google");
is(run_source('thief'), 'failed 28000', 'a key that is another is refused');
source('junk', { client_id => 'x', private_key => 'no key at all' }, 'google', url => "http://127.0.0.1:$port/google");
is(run_source('junk') . ' ' . state_of('junk'), 'failed 28000 stopped|the source\'s private key cannot sign', 'what is no key is told');
for my $where ('header', 'query')
{
	my $spec = $where eq 'header' ? '{"auth": {"api_key": {"header": "X-Emulator-Key"}}}' : '{"auth": {"api_key": {"query": "api_key"}}}';
	sql(qq{SELECT add_connector('key-$where', spec || '$spec') FROM connectors WHERE name = 'scim'});
	source("key-$where", { api_key => 'k&y' }, "key-$where");
	is(run_source("key-$where"), 'succeeded -', "an API key in the $where");
}
sql(q{SELECT add_connector('sealed', spec || '{"auth": {"token_url": "https://login.example/{directory}/token"}, "parameters": {"directory": "", "filter": "", "page_size": "100"}}') FROM connectors WHERE name = 'scim'});
$node->safe_psql('postgres', qq{SELECT contactsync.add_source('nowhere', 'sealed', '{"url": "http://127.0.0.1:$port/scim", "poll": false, "allow_http": true, "allow_private": true}',
	'{"refresh_token": "r", "client_id": "i"}')});
is(run_source('nowhere'), 'failed 28000', 'a parameter that the token URL needs is missing');

# ---- another key for the secrets ----
is(sql('SELECT rekey_secrets()'), '0', 'secrets that are sealed under the key in force stay');
spew("$dir/key", "$newer\n$key\n");
is(run_source('refresh'), 'succeeded -', 'under a new key the old secrets open');
my $sealed = sql('SELECT count(*) FROM source_secrets WHERE sealed IS NOT NULL');
is(sql('SELECT rekey_secrets()'), $sealed, 'rekey_secrets() seals them anew');
is(sql('SELECT rekey_secrets()'), '0', 'once');
spew("$dir/key", "$newer\n");
control(op => 'revoke');
is(run_source('refresh'), 'succeeded -', 'then the old key may go');
spew("$dir/key", ('ef' x 32) . "\n");
is(($node->psql('postgres', 'SELECT contactsync.rekey_secrets()'))[0], 3, 'without any key that opens them, nothing is done');

# ---- whom a server is trusted by ----
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=provider', '-addext', 'subjectAltName=IP:127.0.0.1',
	'-keyout', "$dir/tls.key", '-out', "$dir/tls.crt");
spew("$dir/tls.pem", slurp_file("$dir/tls.crt") . slurp_file("$dir/tls.key"));
mkdir "$dir/tls";
my ($tls, $tls_port) = do { local $ENV{TLS_CERTIFICATE} = "$dir/tls.pem"; start_providers("$dir/tls") };
spew("$dir/tok", 'tok');
$node->safe_psql('postgres', qq{SELECT contactsync.add_source('tls', 'scim', '{"url": "https://127.0.0.1:$tls_port/scim", "poll": false, "allow_private": true}', '{"token": {"file": "$dir/tok"}}')});
is(run_source('tls'), 'failed 08004', 'a certificate that nobody vouches for: ' . (split /\|/, state_of('tls'))[1]);
sql("ALTER SYSTEM SET contactsync.http_ca_file = '$dir/tls.crt'");
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('contactsync.http_ca_file') <> ''") or die;
is(run_source('tls'), 'succeeded -', 'one that an authority of our own does');
$tls->kill_kill;

# ---- certificates of a source ----
sql('ALTER SYSTEM RESET contactsync.http_ca_file');
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('contactsync.http_ca_file') = ''") or die;
run_log([ 'openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=client', '-days', '2', '-keyout', "$dir/client.key", '-out', "$dir/client.crt" ]);
mkdir "$dir/mutual";
my ($mutual, $mutual_port) = do { local @ENV{qw(TLS_CERTIFICATE TLS_CLIENT_CA)} = ("$dir/tls.pem", "$dir/client.crt"); start_providers("$dir/mutual") };
my %given = (token => { file => "$dir/tok" });
my $settings = encode_json({ url => "https://127.0.0.1:$mutual_port/scim", poll => JSON::PP::false, allow_private => JSON::PP::true });
$node->safe_psql('postgres', qq{SELECT contactsync.add_source('mutual', 'scim', '$settings', '@{[encode_json(\%given)]}')});
is(run_source('mutual'), 'failed 08004', 'a server that is not trusted is sent nothing');
sub give
{
	%given = (%given, @_);
	$node->safe_psql('postgres', qq{SET log_statement = 'none'; SELECT contactsync.alter_source('mutual', NULL, \$s\$@{[encode_json(\%given)]}\$s\$)});
}
give(ca => { file => "$dir/tls.crt" });
like(run_source('mutual'), qr/^failed 08/, 'a source has authorities of its own, but this server wants to know who asks: ' . (split /\|/, state_of('mutual'))[1]);
give(client_certificate => slurp_file("$dir/client.crt"), client_key => slurp_file("$dir/client.key"));
is(run_source('mutual'), 'succeeded -', 'which a certificate and a key tell, here sealed');
give(client_certificate => { file => "$dir/client.crt" }, client_key => { file => "$dir/client.key" });
is(run_source('mutual'), 'succeeded -', 'or in files');
give(client_key => { file => "$dir/tls.key" });
is(run_source('mutual'), 'failed 08004', 'a key of another certificate is of no use, and gets no connection of before: ' . (split /\|/, state_of('mutual'))[1]);
my (undef, undef, $alone) = $node->psql('postgres', qq{SELECT contactsync.alter_source('mutual', NULL, '{"client_certificate": {"file": "$dir/client.crt"}}')});
like($alone, qr/go together/, 'nor is one without the other');
$mutual->kill_kill;

my $all = slurp_file($node->logfile);
unlike($all, qr/s\/cret|wr0ng|access\d|k&y|k%26y|BEGIN (RSA )?PRIVATE|secret words/, 'no secret is in the log');
unlike($all, qr/TRAP|PANIC/, 'no assertion failed');
$node->stop;
$emulator->kill_kill;
done_testing();
