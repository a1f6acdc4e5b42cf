package salver.streams;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.Locale;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;

/** Scores a topic into another, one record at a time, as Kafka Streams programs do. */
public final class Score {
    private final Options options;
    private final LongAdder scored = new LongAdder();
    private final CountDownLatch running = new CountDownLatch(1);
    private final CountDownLatch ended = new CountDownLatch(1);
    private volatile Throwable failure;

    private Score(Options options) {
        this.options = options;
    }

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length == 0 || arguments[0].equals("--help")) {
            System.out.print(Options.HELP);
            return;
        }
        System.setProperty("org.slf4j.simpleLogger.defaultLogLevel", System.getProperty("log", "warn"));
        try {
            new Score(new Options(arguments)).run();
        } catch (IllegalArgumentException e) {
            System.err.println("error: " + e.getMessage());
            System.exit(2);
        }
    }

    private void run() throws InterruptedException {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<Batch> batches =
                new BatchSerde(options.choice(Format.class, "format", Format.TEXT), options.choice(BatchSerde.Mapper.class, "mapper", BatchSerde.Mapper.EACH));
        Serde<byte[]> keys = Serdes.ByteArray();
        builder.stream(options.needed("from"), Consumed.with(keys, batches))
                .process(Step::new)
                .to(options.needed("to"), Produced.with(keys, batches));

        KafkaStreams streams = new KafkaStreams(builder.build(), properties());
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.RUNNING) {
                running.countDown();
            }
        });
        streams.setUncaughtExceptionHandler(e -> {
            failure = e;
            running.countDown();
            ended.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            ended.countDown();
            try {
                main.join(Duration.ofSeconds(60).toMillis());
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        streams.start();
        running.await();
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long records = scored.sum();
        long cpu = system.getProcessCpuTime();
        if (failure == null) {
            System.out.println("ready");
        }
        ended.await();
        streams.close(Duration.ofSeconds(30));
        if (failure != null) {
            failure.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
        double seconds = (system.getProcessCpuTime() - cpu) / 1e9;
        System.out.printf(Locale.ROOT, "{\"records\": %d, \"cpu_seconds\": %.3f}%n", scored.sum() - records, seconds);
        System.out.flush();
        // Otherwise the status would be that of a signal.
        Runtime.getRuntime().halt(0);
    }

    private Properties properties() {
        Properties properties = new Properties();
        boolean exactly = options.choice(Guarantee.class, "guarantee", Guarantee.AT_LEAST_ONCE) == Guarantee.EXACTLY_ONCE;
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, options.needed("bootstrap"));
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, options.get("group", "kafka-streams-score-" + System.currentTimeMillis()));
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, options.get("threads", "1"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, exactly ? StreamsConfig.EXACTLY_ONCE_V2 : StreamsConfig.AT_LEAST_ONCE);
        // As in the published benchmark, whose larger models have larger records.
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.MAX_REQUEST_SIZE_CONFIG), "10485760");
        if (options.has("commit-ms")) {
            properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, options.needed("commit-ms"));
        }
        properties.putAll(options.properties);
        return properties;
    }

    private enum Guarantee { AT_LEAST_ONCE, EXACTLY_ONCE }

    private Scorer scorer() throws Exception {
        if (options.has("onnx")) {
            return new OnnxScorer(options.needed("onnx"));
        }
        return new ServingScorer(
                options.needed("remote"),
                options.needed("model"),
                options.get("input", "input_1"),
                options.get("output", "output"),
                options.shape());
    }

    /** One record in, one out. Made for each task. */
    private final class Step extends ContextualProcessor<byte[], Batch, byte[], Batch> {
        private Scorer scorer;

        @Override
        public void process(Record<byte[], Batch> record) {
            if (record.value() == null) {
                return;
            }
            try {
                if (scorer == null) {
                    scorer = scorer();
                }
                record.value().prediction = scorer.score(record.value().points);
            } catch (Exception e) {
                throw new IllegalStateException(e);
            }
            context().forward(record);
            scored.increment();
        }

        @Override
        public void close() {
            if (scorer != null) {
                scorer.close();
            }
        }
    }
}
