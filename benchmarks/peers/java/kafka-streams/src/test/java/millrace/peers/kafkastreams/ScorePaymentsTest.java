package millrace.peers.kafkastreams;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import millrace.peers.job.Arguments;
import millrace.peers.job.Model;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.processor.api.MockProcessorContext;
import org.apache.kafka.streams.processor.api.MockProcessorContext.CapturedForward;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.junit.jupiter.api.Test;

class ScorePaymentsTest {
    private static final String SCHEMAS = "../../schemas";
    private static final String[] WORDS = {
        "--rows", "4", "--score-ms", "50", "--guarantee", "exactly_once_v2", "--schemas", SCHEMAS, "--store", "memory"
    };

    private final KeyValueStore<Bytes, byte[]> payments =
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(ScorePayments.PAYMENTS), Serdes.Bytes(), Serdes.ByteArray())
                    .withLoggingDisabled()
                    .build();
    private final KeyValueStore<Integer, byte[]> unscored =
            Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore(ScorePayments.UNSCORED), Serdes.Integer(), Serdes.ByteArray())
                    .withLoggingDisabled()
                    .build();
    private final Model model = new Model(Path.of("src/test/resources/forest.onnx").toString());

    @Test
    void rowsThatWaitedAreScoredAfterARestartAndNoneTwice() throws IOException {
        MockProcessorContext<byte[], byte[]> before = new MockProcessorContext<>();
        payments.init(before.getStateStoreContext(), payments);
        unscored.init(before.getStateStoreContext(), unscored);
        ScorePayments first = started(before);
        for (int payment = 0; payment < 6; payment++) {
            first.process(record("p-" + payment, payment * 1_000L));
        }
        assertEquals(4, before.forwarded().size(), "a full batch is scored at once");

        MockProcessorContext<byte[], byte[]> after = new MockProcessorContext<>();
        ScorePayments second = started(after);
        second.process(record("p-6", 6_000L));
        after.scheduledPunctuators().get(0).getPunctuator().punctuate(0);

        assertTrue(after.committed());
        List<String> ids = after.forwarded().stream().map(each -> scored(each).get("event_id").toString()).toList();
        assertEquals(List.of("p-4", "p-5", "p-6"), ids);
        assertEquals(7.0, scored(after.forwarded().get(2)).get("count_1d"), "what came before the restart is still in the window");
    }

    private ScorePayments started(MockProcessorContext<byte[], byte[]> context) {
        context.addStateStore(payments);
        context.addStateStore(unscored);
        ScorePayments processor = new ScorePayments(new Arguments(WORDS), model);
        processor.init(context);
        return processor;
    }

    private static Record<byte[], byte[]> record(String id, long eventMs) throws IOException {
        Schema schema = new Schema.Parser().parse(Path.of(SCHEMAS, "payment.avsc").toFile());
        GenericRecord payment = new GenericData.Record(schema);
        payment.put("payment_id", id);
        payment.put("event_time", eventMs);
        payment.put("customer_id", "customer-1");
        payment.put("terminal_id", "terminal-1");
        payment.put("amount", 12.34);
        payment.put("currency", "EUR");
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.write(new byte[] {0, 0, 0, 0, 1});
        BinaryEncoder encoder = EncoderFactory.get().binaryEncoder(bytes, null);
        new GenericDatumWriter<GenericRecord>(schema).write(payment, encoder);
        encoder.flush();
        return new Record<>("customer-1".getBytes(StandardCharsets.UTF_8), bytes.toByteArray(), eventMs);
    }

    private static GenericRecord scored(CapturedForward<? extends byte[], ? extends byte[]> forwarded) {
        byte[] value = forwarded.record().value();
        try {
            Schema schema = new Schema.Parser().parse(Path.of(SCHEMAS, "scored.avsc").toFile());
            return new GenericDatumReader<GenericRecord>(schema).read(null, DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null));
        } catch (IOException error) {
            throw new AssertionError(error);
        }
    }
}
